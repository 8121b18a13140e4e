// A line that runs over a strip as its recording plays; a click on the strip plays from there; one recording at a time.
document.addEventListener("play", (event) => {
  document.querySelectorAll(".gallery audio").forEach((other) => other !== event.target && other.pause());
  const now = event.target.closest(".clip")?.querySelector(".now");
  const follow = () => {
    if (!now) return;
    now.hidden = false;
    now.style.left = `${100 * event.target.currentTime / event.target.duration}%`;
    const strip = now.closest(".strip"), ahead = now.offsetLeft - strip.scrollLeft;
    if (ahead < 0 || ahead > strip.clientWidth - 20) strip.scrollLeft = now.offsetLeft - 20;
    if (!event.target.paused) requestAnimationFrame(follow);
  };
  follow();
}, true);
document.addEventListener("click", (event) => {
  const drawn = event.target.closest(".gallery .drawn");
  const audio = drawn?.closest(".clip").querySelector("audio");
  if (!audio?.duration) return;
  const box = drawn.getBoundingClientRect();
  audio.currentTime = audio.duration * (event.clientX - box.left) / box.width;
  audio.play();
});
