// Inside one function with draw.js, in page.html: the text around the pictures, what keys and pointers do, the sound.

function add(parent, tag, text = "", name = "", more = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), { textContent: text, className: name, ...more }));
}

function tabs() {  // once, so that the one with the focus stays
  D.runs.forEach((r, n) => {
    const button = add($("runs"), "button", r.name, "", { onclick: () => choose(n) });
    const counted = [[r.video_kept, r.video, "video"], [r.audio_kept, r.audio, "audio"]].filter((count) => count[1]);
    add(button, "small", counted.map(([kept, all, what]) => `${kept.toLocaleString("en")} of ${all.toLocaleString("en")} ${what}`).join(" · ") + (deep(r) ? ", mean of layers" : ""));
  });
}

function fill() {
  const r = run(), file = D.video.split(/[\\/]/).pop();
  document.title = `cg: ${file}`;
  Object.assign($("name"), { textContent: file, title: D.video });
  const grids = D.start_s.length ? [`${D.start_s.length} grids of ${D.rows} × ${D.columns} cells`] : ["sound only"];
  $("facts").textContent = [clock(D.duration_s), ...grids, ...(r.model ? [r.model] : [])].join(" · ");
  [...$("runs").children].forEach((button, n) => button.setAttribute("aria-pressed", n === now.run));
  $("versus").hidden = D.runs.length < 2 || !shows;
  const others = [-1, ...D.runs.keys()].filter((n) => n !== now.run);
  $("other").replaceChildren(...others.map((n) => new Option(D.runs[n]?.name ?? "no other", n, false, n === now.other)));
  listAnswers();
  figures();
}

function legend(r) {
  const entries = [["kept", "#fff"]];
  if (deep(r)) entries.push(["the darker, the fewer layers read it", "#4a4f5a"]);
  else entries.push(["dropped", "#3d424d"]);
  if (r.into.some((place) => place >= 0)) entries.push([r.segment ? "merged, in its segment's colour" : "merged", colour(r, D.shown[now.at])]);
  if (now.other >= 0) entries.push([`kept here alone (dashed: by ${D.runs[now.other].name} alone)`, APART]);
  $("legend").replaceChildren();
  for (const [words, paint] of entries) {
    const entry = add($("legend"), "li");
    add(entry, "i", "", "", { style: `background:${paint}` });
    entry.append(words);
  }
}

function listAnswers() {
  const by = new Map();
  D.runs.forEach((r, n) => r.told.forEach((told) => by.set(told.question, [...(by.get(told.question) ?? []), [n, told]])));
  $("answers").replaceChildren();
  add($("answers"), "h2", "Questions and answers");
  if (!by.size) add($("answers"), "p", "No question was asked.", "plain");
  for (const [question, answers] of by) {
    add($("answers"), "h3", question);
    const list = add($("answers"), "dl");
    for (const [n, told] of answers) {
      add(list, "dt", D.runs[n].name, n === now.run ? "now" : "");
      add(list, "dd", told.answer ?? told.failed, told.failed ? "failed" : "");
    }
  }
  for (const warning of new Set(D.runs.flatMap((r) => r.told.flatMap((told) => told.warnings ?? [])))) add($("answers"), "p", warning, "plain");
}

function figures() {
  const runs = D.runs.map((r, n) => [r, n]).filter(([r]) => r.figures.length), [, full, ...columns] = D.figures;
  $("figures").replaceChildren();
  if (!runs.length) return;
  const mark = (n, column) => `${n === now.run ? "now" : ""} ${column ? "" : "first"}`;
  const table = add(add($("figures"), "div", "", "scroll"), "table"), head = add(table, "thead"), names = add(head, "tr"), heads = add(head, "tr");
  for (const name of ["", full]) [add(names, "th"), add(heads, "th", name)];
  for (const [r, n] of runs) {
    add(names, "th", r.name, mark(n, 0), { colSpan: columns.length });
    columns.forEach((name, column) => add(heads, "th", name, mark(n, column)));
  }
  runs[0][0].figures.forEach((section, s) => {
    const body = add(table, "tbody");
    section.forEach((row, at) => {
      const line = add(body, "tr");
      for (const text of row.slice(0, 2)) add(line, "td", text);
      for (const [r, n] of runs) r.figures[s][at].slice(2).forEach((text, column) => add(line, "td", text, mark(n, column)));
    });
  });
}

function draw() {
  if (shows) drawPicture();
  drawLine();
  const r = run();
  $("now").textContent = `${clock(stops[now.at])}${shows ? ` · grid ${D.shown[now.at] + 1} of ${D.start_s.length}` : ""}`;
  $("scrub").value = now.at;
  $("scrub").setAttribute("aria-valuetext", clock(stops[now.at]));
  $("overlay").setAttribute("aria-pressed", now.overlay);
  if (!shows) return;
  legend(r);
  $("picture").setAttribute("aria-label", `picture at ${clock(stops[now.at])}, ${percent(r.share[D.shown[now.at]])} kept by ${r.name}`);
  if (now.other < 0) return void ($("apart").textContent = "");
  const here = Array.from({ length: SIZE }, (_, n) => differs(first() + n)).filter(Boolean).length;
  const all = r.kept.reduce((sum, _, cell) => sum + differs(cell), 0);
  $("apart").textContent = `in ${here} of ${SIZE} cells here, ${all.toLocaleString("en")} of ${r.kept.length.toLocaleString("en")} on the page`;
}

// Keys and pointers
function go(at) {
  now.at = Math.min(stops.length - 1, Math.max(0, at));
  if (player && !player.paused) player.currentTime = stops[now.at];
  draw();
  if (now.cell >= 0) point(now.cell);
}

const nearest = (time) => Math.max(0, stops.findLastIndex((stop) => stop <= time + 1e-6));

function choose(n) {
  if (!D.runs[n]) return;
  if (now.other === n) now.other = now.run;
  now.run = n;
  fill();
  draw();
  $("status").textContent = run().name;
  if (now.cell >= 0) point(now.cell);
}

function tell(lines, x, y) {
  const tip = $("tip");
  tip.replaceChildren();
  for (const line of lines) add(tip, "p", line);
  tip.hidden = false;
  const left = x + 16 + tip.offsetWidth < window.innerWidth ? x + 16 : Math.max(4, x - 16 - tip.offsetWidth);
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 16, window.innerHeight - tip.offsetHeight - 4))}px`;
}

function point(n, x = null, y = null) {
  now.cell = n;
  drawPicture();
  const lines = why(first() + n), [left, top, w, h] = box(n), unit = window.devicePixelRatio || 1, at = $("picture").getBoundingClientRect();
  tell(lines, x ?? at.left + (left + w / 2) / unit, y ?? at.top + (top + h / 2) / unit);
  $("status").textContent = lines.join(", ");
}

function leave() {
  $("tip").hidden = true;
  if (now.cell < 0) return;
  now.cell = -1;
  drawPicture();
}

function follow() {  // a merged cell to where it went
  const into = now.cell < 0 ? -1 : run().into[first() + now.cell], at = D.shown.indexOf(Math.floor(into / SIZE));
  if (into < 0 || at < 0) return;
  now.cell = into % SIZE;
  go(at);
}

const cellAt = (event) => {
  const at = $("picture").getBoundingClientRect(), inside = (part, of) => Math.min(of - 1, Math.max(0, Math.floor(part * of)));
  return inside((event.clientY - at.top) / at.height, D.rows) * D.columns + inside((event.clientX - at.left) / at.width, D.columns);
};

const STEPS = { w: [-1, 0], s: [1, 0], a: [0, -1], d: [0, 1] };
function move([down, right]) {
  const row = Math.floor(now.cell / D.columns) + down, column = (now.cell % D.columns) + right;
  if (now.cell < 0) point(0);
  else if (row >= 0 && row < D.rows && column >= 0 && column < D.columns) point(row * D.columns + column);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const step = event.shiftKey ? 5 : 1, there = event.target === $("picture");
  const does = {
    ArrowLeft: () => go(now.at - step), ArrowRight: () => go(now.at + step), Home: () => go(0), End: () => go(stops.length - 1),
    "[": () => choose(now.run - 1), "]": () => choose(now.run + 1), o: () => toggleOverlay(), Escape: leave,
    ...(there ? { Enter: follow, ...Object.fromEntries(Object.entries(STEPS).map(([name, by]) => [name, () => move(by)])) } : {}),
  }[event.key.length > 1 ? event.key : event.key.toLowerCase()] ?? (/^[1-9]$/.test(event.key) ? () => choose(event.key - 1) : null);
  if (!does) return;
  event.preventDefault();
  does();
}

function toggleOverlay() {
  now.overlay = !now.overlay;
  draw();
}

// The sound, where it is here
const player = D.sound ? Object.assign(new Audio(D.sound), { onended: () => tick() }) : null;
function tick() {
  $("play").textContent = player.paused ? "play" : "pause";
  now.at = nearest(player.currentTime);
  draw();
  if (now.cell >= 0) point(now.cell);
  if (!player.paused) requestAnimationFrame(tick);
}
$("play").hidden = !player;
$("play").onclick = () => {
  if (!player.paused) return player.pause();
  player.currentTime = nearest(player.currentTime) === now.at ? player.currentTime : stops[now.at];
  player.play().then(tick);
};

// From here on
const images = D.frames.map((uri, at) => Object.assign(new Image(), { onload: () => (at === now.at || at === 0) && draw(), src: uri }));
$("stage").hidden = !shows;
$("answers").classList.toggle("alone", !shows);
$("scrub").max = stops.length - 1;
if (D.shown.length < D.start_s.length)
  $("thin").textContent = `${D.shown.length} of ${D.start_s.length} grids are shown: evenly, and where segments begin. The bars are of all.`;
$("scrub").oninput = () => go(+$("scrub").value);
$("other").onchange = () => { now.other = +$("other").value; draw(); };
$("overlay").onclick = toggleOverlay;
document.addEventListener("keydown", key);
$("picture").addEventListener("pointermove", (event) => point(cellAt(event), event.clientX, event.clientY));
$("picture").addEventListener("pointerdown", (event) => point(cellAt(event), event.clientX, event.clientY));
$("picture").addEventListener("click", follow);
$("picture").addEventListener("focus", () => now.cell < 0 && $("picture").matches(":focus-visible") && point(0));
for (const name of ["pointerleave", "blur"]) $("picture").addEventListener(name, leave);
$("line").addEventListener("pointerdown", (event) => { $("line").setPointerCapture(event.pointerId); go(nearest(timeAt(event.offsetX))); });
$("line").addEventListener("pointermove", (event) => {
  const time = timeAt(event.offsetX);
  if (event.buttons) go(nearest(time));
  tell(when(time), event.clientX, $("line").getBoundingClientRect().bottom - 12);  // under it
});
$("line").addEventListener("pointerleave", leave);
new ResizeObserver(draw).observe(document.querySelector("main"));
tabs();
fill();
draw();
