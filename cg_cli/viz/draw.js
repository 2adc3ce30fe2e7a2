// Inside one function with page.js, in page.html: the data, words for it, the picture and the line of time.
const $ = (id) => document.getElementById(id);
const D = JSON.parse($("data").textContent);
const SIZE = D.rows * D.columns;  // cells of a grid
const SEGMENTS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];  // told apart by colour-blind eyes, too
const GREY = "#7d8796", DIM = 0.72, TINT = 0.4, MARK = "#0b57d0", APART = "#ff2d8f";
const shows = D.frames.length > 0;
const stops = shows ? D.shown.map((grid) => D.start_s[grid]) : Array.from({ length: Math.max(1, Math.ceil(D.duration_s)) }, (_, second) => second);
const now = { at: 0, run: 0, other: -1, overlay: true, cell: -1 };
const run = () => D.runs[now.run];

// Words
const clock = (t) => (t < 60 ? `${t.toFixed(2)} s` : `${Math.floor(t / 60)}:${(t % 60).toFixed(1).padStart(4, "0")}`);
const percent = (part) => `${+(100 * part).toFixed(1)} %`;
const end = (grid) => D.start_s[grid + 1] ?? Math.max(D.duration_s, D.start_s[grid]);
const colour = (r, grid) => (r.segment ? SEGMENTS[r.segment[grid] % SEGMENTS.length] : GREY);
const stays = (r, cell) => r.kept[cell] >= r.full;
const deep = (r) => r.kept.some((share) => share > 0 && share < 1);
const differs = (cell) => now.other >= 0 && stays(run(), cell) !== stays(D.runs[now.other], cell);
const spot = (place) => `row ${Math.floor((place % SIZE) / D.columns) + 1}, column ${(place % D.columns) + 1}`;
const first = () => now.at * SIZE;  // of the cells that are seen

function why(cell) {
  const r = run(), grid = D.shown[now.at], into = r.into[cell], reason = r.reasons[r.reason[cell]];
  const fate = stays(r, cell) ? "kept" : into >= 0 ? "merged" : "dropped";
  const lines = [["kept", "dropped"].includes(reason) ? fate : `${fate}: ${reason}`];
  lines.push(`${spot(cell)}, ${clock(D.start_s[grid])}`);
  if (deep(r)) lines.push(`read by ${percent(r.kept[cell])} of the layers`);
  if (r.score[cell] !== null) lines.push(`score ${r.score[cell]}`);
  if (into >= 0) {
    const there = Math.floor(into / SIZE);
    lines.push(`merged into ${spot(into)} ${there === grid ? "of this grid" : `at ${clock(D.start_s[there])}`}`);
  }
  if (r.takes[cell]) lines.push(`stands for ${r.takes[cell]} more`);
  if (differs(cell)) lines.push(`${stays(D.runs[now.other], cell) ? "kept" : "not kept"} by ${D.runs[now.other].name}`);
  return lines;
}

function when(time) {
  const r = run(), lines = [clock(time)];
  if (D.start_s.length) {
    const grid = Math.max(0, D.start_s.findLastIndex((start) => start <= time + 1e-6));
    lines.push(`picture: ${percent(r.share[grid])} kept`);
    if (r.segment) lines.push(`segment ${r.segment[grid] + 1}`);
    if (r.recoverable) lines.push(`recoverable from sound: ${percent(r.recoverable[grid])}`);
  }
  const sound = D.sound_s.findLastIndex((start) => start <= time);
  if (sound >= 0) {
    const into = r.sound_into[sound];
    const kept = r.sound_kept[sound], dropped = kept ? `read by ${percent(kept)} of the layers` : "dropped";
    lines.push(`sound: ${kept >= 1 ? "kept" : into >= 0 ? `merged into ${clock(D.sound_s[into])}` : dropped}`);
  }
  return lines;
}

// The picture
function fit(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const size = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  return canvas.getContext("2d");
}

const box = (place) => {  // of a cell: left, top, width, height in pixels of the canvas
  const { width, height } = $("picture"), row = Math.floor((place % SIZE) / D.columns), column = place % D.columns;
  const edge = (at, of, long) => Math.round((at * long) / of);
  const x = edge(column, D.columns, width), y = edge(row, D.rows, height);
  return [x, y, edge(column + 1, D.columns, width) - x, edge(row + 1, D.rows, height) - y];
};

function outline(pen, place, inset, width, style, dash = []) {
  const [x, y, w, h] = box(place);
  Object.assign(pen, { lineWidth: width, strokeStyle: style });
  pen.setLineDash(dash);
  pen.strokeRect(x + inset, y + inset, w - 2 * inset, h - 2 * inset);
  pen.setLineDash([]);
}

function drawPicture() {
  const image = images[now.at], shape = images[0];
  if (!image.naturalWidth || !shape.naturalWidth) return;
  const ratio = shape.naturalHeight / shape.naturalWidth, width = Math.min($("stage").clientWidth, (0.72 * window.innerHeight) / ratio);
  const pen = fit($("picture"), width, width * ratio), r = run(), unit = window.devicePixelRatio || 1;
  pen.drawImage(image, 0, 0, $("picture").width, $("picture").height);
  for (let n = 0; now.overlay && n < SIZE; n++) {
    const cell = first() + n, [x, y, w, h] = box(n), merged = r.into[cell] >= 0;
    const layers = [["#10131a", (merged ? DIM - TINT / 2 : DIM) * (1 - r.kept[cell])], ...(merged ? [[colour(r, D.shown[now.at]), TINT]] : [])];
    for (const [style, alpha] of layers) {
      Object.assign(pen, { fillStyle: style, globalAlpha: alpha });
      pen.fillRect(x, y, w, h);
    }
    pen.globalAlpha = 1;
    if (stays(r, cell)) continue;
    pen.fillStyle = "#fff";  // where what is kept begins, on the side of what is not
    if (n % D.columns && stays(r, cell - 1)) pen.fillRect(x, y, unit, h);
    if ((n + 1) % D.columns && stays(r, cell + 1)) pen.fillRect(x + w - unit, y, unit, h);
    if (n >= D.columns && stays(r, cell - D.columns)) pen.fillRect(x, y, w, unit);
    if (n < SIZE - D.columns && stays(r, cell + D.columns)) pen.fillRect(x, y + h - unit, w, unit);
  }
  for (let n = 0; now.other >= 0 && n < SIZE; n++)
    if (differs(first() + n)) outline(pen, n, 3 * unit, 2 * unit, APART, stays(r, first() + n) ? [] : [4 * unit, 3 * unit]);
  if (now.cell >= 0) drawCursor(pen, r, unit);
}

function drawCursor(pen, r, unit) {
  const here = D.shown[now.at] * SIZE, into = r.into[first() + now.cell];
  for (let n = 0; n < SIZE; n++) if (r.into[first() + n] === here + now.cell) outline(pen, n, unit, 2 * unit, "#ffd54a");
  if (into >= here && into < here + SIZE) {
    const [ax, ay, aw, ah] = box(now.cell), [bx, by, bw, bh] = box(into);
    for (const [width, style] of [[5, "#000"], [2.5, "#ffd54a"]]) {
      Object.assign(pen, { lineWidth: width * unit, strokeStyle: style });
      pen.beginPath();
      pen.moveTo(ax + aw / 2, ay + ah / 2);
      pen.lineTo(bx + bw / 2, by + bh / 2);
      pen.stroke();
    }
    outline(pen, into, unit, 5 * unit, "#000");
    outline(pen, into, unit, 2.5 * unit, "#ffd54a");
  }
  outline(pen, now.cell, unit, 5 * unit, "#000");
  outline(pen, now.cell, unit, 2.5 * unit, "#fff");
}

// The line of time
const GUTTER = 84, PAD = 6;  // pixels left and right of it
const timeAt = (x) => Math.min(1, Math.max(0, (x - GUTTER) / ($("line").clientWidth - GUTTER - PAD))) * D.duration_s;

function drawLine() {
  const r = run(), width = $("when").clientWidth, bands = [];
  const x = (time) => GUTTER + (Math.min(time, D.duration_s) / (D.duration_s || 1)) * (width - GUTTER - PAD);
  const grids = (paint) => (top, high) => D.start_s.forEach((start, grid) => paint(grid, x(start), Math.max(1, x(end(grid)) - x(start)), top, high));
  const bar = (share, left, wide, top, high) => pen.fillRect(left, top + high * (1 - share), Math.max(1, wide - (wide > 4)), high * share);
  if (D.start_s.length) bands.push(["picture kept", 46, grids((grid, left, wide, top, high) => {
    pen.fillStyle = "#e6e9ee";
    bar(1, left, wide, top, high);
    pen.fillStyle = "#36414f";
    bar(r.share[grid], left, wide, top, high);
  })]);
  if (now.other >= 0 && shows) bands.push(["differs", 22, (top, high) => D.shown.forEach((grid, at) => {
    let apart = 0;
    for (let n = 0; n < SIZE; n++) apart += differs(at * SIZE + n);
    pen.fillStyle = APART;
    bar(apart / SIZE, x(D.start_s[grid]), x(end(grid)) - x(D.start_s[grid]), top, high);
  })]);
  if (r.segment && D.start_s.length) bands.push(["segments", 9, grids((grid, left, wide, top, high) => {
    pen.fillStyle = colour(r, grid);
    pen.fillRect(left + (grid > 0 && r.segment[grid] !== r.segment[grid - 1]), top, wide + 0.5, high);
  })]);
  if (r.recoverable && D.start_s.length) bands.push(["recoverable", 20, grids((grid, left, wide, top, high) => {
    pen.fillStyle = "#dff1ea";
    pen.fillRect(left, top, wide + 0.5, high);
    pen.fillStyle = "#00805c";
    pen.fillRect(left, top + high * (1 - r.recoverable[grid]), wide + 0.5, high * r.recoverable[grid]);
  })]);
  if (D.wave) bands.push(["sound", 46, (top, high) => {
    const [low, tall] = D.wave, long = D.sound_end;
    pen.fillStyle = "#6b7686";
    low.forEach((least, n) => {
      const left = x((n / low.length) * long), wide = x(((n + 1) / low.length) * long) - left, span = (high * (tall[n] - least)) / 200;
      pen.fillRect(left, top + (high * (100 - tall[n])) / 200, Math.max(0.8, wide), Math.max(0.8, span));
    });
  }]);
  if (D.sound_s.length) bands.push(["sound kept", 9, (top, high) => D.sound_s.forEach((start, n) => {
    const wide = x(D.sound_s[n + 1] ?? D.sound_end) - x(start);
    for (const [style, alpha] of [["#e6e9ee", 1], ["#36414f", r.sound_kept[n]]]) {
      Object.assign(pen, { fillStyle: style, globalAlpha: alpha });
      pen.fillRect(x(start), top, Math.max(0.5, wide - (wide > 3)), high);
    }
    pen.globalAlpha = 1;
  })]);
  const total = bands.reduce((sum, [, high]) => sum + high + 7, 18), pen = fit($("line"), width, total), unit = window.devicePixelRatio || 1;
  pen.setTransform(unit, 0, 0, unit, 0, 0);
  pen.clearRect(0, 0, width, total);
  Object.assign(pen, { font: "12px system-ui, sans-serif", textBaseline: "middle" });
  let top = 2;
  for (const [name, high, paint] of bands) {
    pen.fillStyle = "#5b6472";
    pen.fillText(name, 0, top + high / 2);
    paint(top, high);
    top += high + 7;
  }
  const step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((s) => x(s) - x(0) > 64) ?? 7200;
  pen.fillStyle = "#5b6472";
  for (let time = 0; time <= D.duration_s; time += step) {
    pen.fillRect(x(time), top - 5, 1, 4);
    const label = step < 1 || D.duration_s < 60 ? `${time}` : `${Math.floor(time / 60)}:${String(time % 60).padStart(2, "0")}`;
    pen.fillText(label, Math.min(x(time) + 3, width - pen.measureText(label).width), top + 5);
  }
  const left = x(stops[now.at]), right = shows ? x(end(D.shown[now.at])) : left + 2;
  pen.fillStyle = "#0b57d022";
  pen.fillRect(left, 0, Math.max(2, right - left), top - 4);
  pen.fillStyle = MARK;
  pen.fillRect(player && !player.paused ? x(player.currentTime) : left, 0, 2, top - 4);
}
