// What is chosen, dropped, recorded or clicked goes to the page's own address; the answer is HTML that it made.
const [state, answer, drop, record, clock] = ["state", "answer", "drop", "record", "clock"].map((id) => document.getElementById(id));
const SPEECH_RATE = 16000, MARGIN = SPEECH_RATE / 20, SILENCE = 0.02; // samples a second, samples, share of the loudest
const LONGEST_SECONDS = 100; // of a recording
let latest = null; // the search that was asked for last: of others nothing is shown

class Fault extends Error {} // told as it stands

async function search(path, name, body = null) {
  latest?.abort();
  const own = latest = new AbortController();
  tell(`Searching by ${name} ...`, true);
  const [text, isFound] = await reply(path, name, body, own.signal);
  if (own !== latest) return;
  tell(isFound ? "" : text);
  answer.innerHTML = isFound ? text : "";
  answer.querySelector("h2")?.focus();
}

// body: what is sent, or the promise of it.
async function reply(path, name, body, signal) {
  try {
    const headers = { "X-Name": encodeURIComponent(name) };
    const sent = await fetch(path, { method: "POST", body: await body, headers, signal });
    return [await sent.text(), sent.ok];
  } catch (error) {
    return [error instanceof Fault ? error.message : "The page's server does not answer; start jobs/search.py again.", false];
  }
}

function tell(text, isBusy = false) {
  state.textContent = text;
  document.body.classList.toggle("busy", isBusy);
}

for (const button of document.querySelectorAll(".examples button"))
  button.addEventListener("click", () => search(button.dataset.path, button.dataset.name));

document.getElementById("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) searchBy(file);
  event.target.value = ""; // the same file can be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) searchBy(file);
  });
}

// What the server reads it is sent as it is; what else is a sound, as the WAV that it decodes to.
function searchBy(file) {
  const endsAs = (kind) => drop.dataset[kind].split(" ").some((ending) => file.name.toLowerCase().endsWith(ending));
  if (file.type.startsWith("image/") || endsAs("image")) search("image", file.name, file);
  else search("speech", file.name, endsAs("speech") ? file : decoded(file).then(wav));
}

async function decoded(sound) {
  try {
    const decoder = new OfflineAudioContext(1, 1, SPEECH_RATE);
    const heard = await decoder.decodeAudioData(await sound.arrayBuffer());
    const channels = Array.from({ length: heard.numberOfChannels }, (_, number) => heard.getChannelData(number));
    return channels[0].map((_, place) => channels.reduce((sum, channel) => sum + channel[place], 0) / channels.length);
  } catch {
    throw new Fault(`${sound.name ?? "The recording"}: no sound that this browser can decode; give a WAV, FLAC, OGG or MP3 file.`);
  }
}

let recorder = null;
record?.addEventListener("click", async () => {
  if (recorder) return recorder.stop();
  record.disabled = true;
  let stream = null;
  try {
    stream = await microphone();
    recorded(stream);
  } catch (error) {
    stream?.getTracks().forEach((track) => track.stop());
    tell(`No recording: ${error.message}.`);
  }
  record.disabled = false;
});

async function microphone() {
  if (!navigator.mediaDevices || !window.MediaRecorder)
    throw new Fault("browsers give the microphone only to pages of https, 127.0.0.1 or localhost; open this one there, or choose a file");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const known = { NotAllowedError: "the microphone is not allowed to this page", NotFoundError: "there is no microphone" };
    throw new Fault(`${known[error.name] ?? error.message}; choose a file`);
  }
}

// The browser records in a format of its own.
function recorded(stream) {
  const parts = [], began = Date.now(), own = new MediaRecorder(stream);
  own.ondataavailable = (event) => parts.push(event.data);
  own.onstop = () => {
    clearInterval(ticking);
    stream.getTracks().forEach((track) => track.stop());
    recorder = null;
    recording(false);
    search("speech", "Your recording", decoded(new Blob(parts)).then(spoken).then(wav));
  };
  const tick = () => {
    const seconds = (Date.now() - began) / 1000;
    clock.textContent = `${inMinutes(seconds)} of ${inMinutes(LONGEST_SECONDS)}`;
    if (seconds >= LONGEST_SECONDS) recorder?.stop();
  };
  own.start(); // it may refuse
  recorder = own;
  latest?.abort(); // no answer takes the focus from who records
  latest = null;
  const ticking = setInterval(tick, 200);
  recording(true);
  tick();
}

function recording(goesOn) {
  record.textContent = goesOn ? "Stop" : "Record";
  record.setAttribute("aria-pressed", goesOn);
  clock.textContent = "";
  tell(goesOn ? "Recording ..." : "");
}

function inMinutes(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

// Without the silence before and after: whoever records presses the button too early and too late.
function spoken(samples) {
  const loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  if (!loudest) throw new Fault("The recording is silent; is the microphone on?");
  const loud = (sample) => Math.abs(sample) > SILENCE * loudest;
  return samples.slice(Math.max(0, samples.findIndex(loud) - MARGIN), samples.findLastIndex(loud) + MARGIN);
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
