"""An exported pair as an MLflow pyfunc model; MLflow runs this file itself (models from code), so nothing is pickled.

Input: a row a query with the columns `speech` and `image`, either or both: files (wav, flac, ogg; PNG, JPEG), as base64
text. Output: a row each with the unit embeddings `speech_embedding` and `image_embedding`, null where none was asked.
"""

import base64
import binascii
from typing import Any

import mlflow
import pandas
from mlflow.pyfunc import PythonModel

COLUMNS = ("speech", "image")
ARTIFACT = "pair"


class SpeechImageModel(PythonModel):  # type: ignore[misc]
    """`load_context` reads the exported folder; the embeddings are those of `sia.load`."""

    def load_context(self, context: Any) -> None:
        from sia.inference.load import load

        self.pair = load(context.artifacts[ARTIFACT])

    def predict(
        self, context: Any, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, list[float] | None]]:
        """A table of files -> a list of embeddings a row. Raises UserError that names the row which cannot be read."""
        rows = model_input.to_dict(orient="records")
        embedders = {"speech": self.pair.embed_speech, "image": self.pair.embed_image}
        return [
            {f"{column}_embedding": _embedding(embedders[column], row.get(column), number) for column in COLUMNS}
            for number, row in enumerate(rows)
        ]


def _embedding(embed: Any, encoded: Any, number: int) -> list[float] | None:
    from sia.errors import UserError

    # A table fills what a row lacks with None or NaN.
    if not isinstance(encoded, str):
        return None
    try:
        return [float(value) for value in embed(base64.b64decode(encoded, validate=True))]
    except binascii.Error:
        raise UserError(f"row {number}: not base64; encode the file's bytes") from None
    except UserError as error:
        raise UserError(f"row {number}: {error}") from None


mlflow.models.set_model(SpeechImageModel())
