// Replays trials on their maps. The data stand in the element "replays"; see replay.py.
"use strict";
(() => {
  const trials = JSON.parse(document.getElementById("replays").textContent);
  const get = (id) => document.getElementById(`replay-${id}`);
  const canvas = get("canvas");
  const context = canvas.getContext("2d");
  const images = trials.map((trial) => {
    const image = new Image();
    image.onload = draw;
    image.src = trial.map;
    return image;
  });
  let trial = 0;
  let episode = 0;
  let step = 0;
  let timer = null;

  const current = () => trials[trial].episodes[episode];
  const lengthOf = (e) => e.x.length;

  function place(e, i) {
    const { left, right, bottom, top, unit } = trials[trial];
    return [
      ((e.x[i] * unit - left) / (right - left)) * canvas.width,
      ((top - e.y[i] * unit) / (top - bottom)) * canvas.height,
    ];
  }

  function way(e, last, colour, width) {
    context.beginPath();
    for (let i = 0; i <= last; i++) context.lineTo(...place(e, i));
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = context.lineCap = "round";
    context.stroke();
  }

  function dot(where, radius, fill, line, width) {
    context.beginPath();
    context.arc(...where, radius, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = line;
    context.stroke();
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
  }

  function draw() {
    const { left, right, bottom, top, episodes } = trials[trial];
    const wide = canvas.clientWidth * (window.devicePixelRatio || 1);
    canvas.width = Math.round(wide);
    canvas.height = Math.round((wide * (top - bottom)) / (right - left));
    const size = canvas.width / 100;
    const image = images[trial];
    context.globalAlpha = 0.8; // Ways and marks stand out from a paler map.
    if (image.complete) context.drawImage(image, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    if (get("earlier").checked) {
      for (const e of episodes.slice(0, episode)) {
        way(e, lengthOf(e) - 1, "rgba(42, 95, 143, 0.3)", 0.4 * size);
      }
    }
    const e = current();
    for (const [x, y] of e.goals) {
      const where = place({ x: [x], y: [y] }, 0);
      dot(where, 2.8 * size, null, "white", 1.4 * size);
      dot(where, 2.8 * size, null, "#d2203a", 0.8 * size);
    }
    way(e, step, "white", 1.1 * size);
    way(e, step, "#d2203a", 0.7 * size);
    dot(place(e, 0), 0.9 * size, "white", "#1c2430", 0.3 * size);
    const here = place(e, step);
    if (e.heading) {
      // Canvas rows grow downwards, so angles turn the other way round.
      const angle = (-e.heading[step] * Math.PI) / 180;
      context.beginPath();
      context.moveTo(...here);
      context.arc(...here, 10 * size, angle - Math.PI / 4, angle + Math.PI / 4);
      context.fillStyle = "rgba(255, 225, 80, 0.5)";
      context.fill();
    }
    dot(here, 1.4 * size, "#d2203a", "white", 0.5 * size);
    get("step").value = step;
    get("status").textContent =
      `Episode ${episode}, step ${step + 1} of ${lengthOf(e)}` +
      (e.goal ? `, looking for: ${e.goal}` : "");
    // Who watches should not know the end before it.
    get("outcome").textContent = step + 1 === lengthOf(e) ? e.outcome : "";
  }

  function choose(number, at = 0) {
    episode = number;
    step = at;
    get("step").max = lengthOf(current()) - 1;
    [...get("episodes").children].forEach((button, i) => {
      button.setAttribute("aria-pressed", i === episode);
    });
    draw();
  }

  function open(number) {
    trial = number;
    get("episodes").replaceChildren(
      ...trials[trial].episodes.map((e, i) => {
        const button = document.createElement("button");
        button.type = "button";
        // Not by colour alone.
        button.textContent = e.success === null ? i : `${i} ${e.success ? "\u2713" : "\u2717"}`;
        button.title = e.outcome;
        button.setAttribute("aria-label", `episode ${i}: ${e.outcome}`);
        button.className = e.success === null ? "" : e.success ? "good" : "bad";
        button.onclick = () => choose(i);
        return button;
      }),
    );
    choose(0);
  }

  function advance() {
    if (step + 1 < lengthOf(current())) {
      step += 1;
      draw();
    } else if (episode + 1 < trials[trial].episodes.length) {
      choose(episode + 1);
    } else {
      play(false);
    }
  }

  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(advance, 1000 / get("speed").value) : null;
    get("play").textContent = on ? "Pause" : "Play";
  }

  get("trial").onchange = (event) => open(Number(event.target.value));
  get("step").oninput = (event) => {
    step = Number(event.target.value);
    draw();
  };
  get("play").onclick = () => play(timer === null);
  get("speed").onchange = () => play(timer !== null);
  get("earlier").onchange = draw;
  window.addEventListener("resize", draw);
  open(0);
})();
