// What is chosen, dropped or recorded goes to the page's own address; the answer is HTML that it made.
const state = document.getElementById("state"), answer = document.getElementById("answer");
const drop = document.getElementById("drop"), record = document.getElementById("record");
const SPEECH_RATE = 16000, MARGIN = SPEECH_RATE / 20, SILENCE = 0.02; // samples a second, samples, share of the loudest

async function search(file, name) {
  const kind = file.type.startsWith("image/") ? "image" : "speech";
  state.textContent = `Searching by ${name} ...`;
  try {
    const reply = await fetch(kind, { method: "POST", body: file, headers: { "X-Name": encodeURIComponent(name) } });
    const text = await reply.text();
    state.textContent = reply.ok ? "" : text;
    answer.innerHTML = reply.ok ? text : "";
  } catch {
    state.textContent = "The page's server does not answer; start jobs/search.py again.";
  }
}

document.getElementById("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) search(file, file.name);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) search(file, file.name);
  });
}

// The browser records in a format of its own; it is sent as the WAV that it decodes to.
let recorder = null;
record?.addEventListener("click", async () => {
  if (recorder) return recorder.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = async () => {
      stream.getTracks().forEach((track) => track.stop());
      recorder = null;
      recording(false);
      const decoder = new OfflineAudioContext(1, 1, SPEECH_RATE);
      const sound = await decoder.decodeAudioData(await new Blob(parts).arrayBuffer());
      search(wav(spoken(sound.getChannelData(0))), "Your recording");
    };
    recorder.start();
    recording(true);
  } catch (error) {
    state.textContent = `No recording: ${error.message}.`;
  }
});

function recording(goesOn) {
  record.textContent = goesOn ? "Stop" : "Record";
  record.setAttribute("aria-pressed", goesOn);
  state.textContent = goesOn ? "Recording ..." : "";
}

// Without the silence before and after: whoever records presses the button too early and too late.
function spoken(samples) {
  const loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  const loud = (sample) => Math.abs(sample) > SILENCE * loudest;
  const last = samples.findLastIndex(loud);
  return samples.slice(Math.max(0, samples.findIndex(loud) - MARGIN), last + MARGIN);
}

function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const letters = (at, text) => [...text].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  letters(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, SPEECH_RATE, true);
  view.setUint32(28, 2 * SPEECH_RATE, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a sample
  view.setUint16(34, 16, true); // bits
  letters(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, place) => view.setInt16(44 + 2 * place, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}
