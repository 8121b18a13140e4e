from sia.models.dual_encoder import DualEncoder
from sia.models.image_encoder import ImageEncoder
from sia.models.speech_encoder import SpeechEncoder

__all__ = ["DualEncoder", "ImageEncoder", "SpeechEncoder"]
