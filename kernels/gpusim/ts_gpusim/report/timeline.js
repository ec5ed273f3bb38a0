// The timeline of one CTA on a canvas: a row for each warp, by role, and one for each engine.
// Launches that are compared share a view, so that they stay at the same scale.
"use strict";

const GUTTER = 210, ROW = 15, HEAD = 24, GAP = 7;
const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => escapes[c]);
const cssColor = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const colorName = (activity) => activity.toLowerCase().replace(" ", "-");
const engineColor = (name) => (name === "tensor cores" ? "mma" : "copy");

function placeOf(recording, number) {
  const [line, text, file, sourceLine] = recording.instructions[number];
  const at = file < 0 ? `PTX line ${line}` : `${recording.files[file]}:${sourceLine}`;
  return { at, text, code: recording.code[`${file}:${sourceLine}`] || "" };
}

class View {
  constructor(end) { this.end = Math.max(end, 1); this.watchers = []; this.reset(); }
  reset() { this.from = 0; this.to = this.end; this.changed(); }
  zoom(factor, at) {
    const width = Math.min(Math.max((this.to - this.from) * factor, 20), this.end);
    const share = (at - this.from) / (this.to - this.from);
    this.move(at - share * width, width);
  }
  move(from, width = this.to - this.from) {
    this.from = Math.min(Math.max(from, 0), this.end - width);
    this.to = this.from + width;
    this.changed();
  }
  changed() { for (const draw of this.watchers) draw(); }
}

class Timeline {
  constructor(canvas, recording, activities, view) {
    Object.assign(this, { canvas, recording, activities, view, cta: 0, hovered: null });
    view.watchers.push(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.listen();
    this.show(0);
  }

  show(cta) {
    this.cta = cta;
    const timeline = this.recording.timelines[cta];
    this.rows = [];
    this.recording.roles.forEach((role) => {
      role.warps.forEach((warp, i) => {
        this.rows.push({ label: i ? "" : role.name, spans: timeline.warps[warp], warp, first: !i });
      });
    });
    timeline.engines.forEach((engine, i) => {
      this.rows.push({ label: engine.name, operations: engine.operations, first: i === 0,
        engine: engine.name });
    });
    let y = HEAD;
    for (const row of this.rows) { if (row.first) y += GAP; row.y = y; y += ROW; }
    this.height = y + 6;
    this.canvas.style.height = `${this.height}px`;
    this.draw();
  }

  x(cycle) { return GUTTER + ((cycle - this.view.from) / (this.view.to - this.view.from)) * this.width; }
  cycle(x) { return this.view.from + ((x - GUTTER) / this.width) * (this.view.to - this.view.from); }

  draw() {
    const { canvas } = this, scale = window.devicePixelRatio || 1, full = canvas.clientWidth;
    if (!full) return;
    canvas.width = full * scale; canvas.height = this.height * scale;
    this.width = full - GUTTER;
    const g = (this.g = canvas.getContext("2d"));
    g.scale(scale, scale);
    g.font = "11px system-ui, sans-serif";
    g.textBaseline = "middle";
    this.axis();
    for (const row of this.rows) {
      g.fillStyle = cssColor("ink"); g.textAlign = "left";
      g.fillText(row.label, 0, row.y + ROW / 2, GUTTER - 34);
      if (row.spans) {
        g.fillStyle = cssColor("soft"); g.textAlign = "right";
        g.fillText(row.warp, GUTTER - 8, row.y + ROW / 2);
      }
      g.save(); g.beginPath(); g.rect(GUTTER, row.y, this.width, ROW); g.clip();
      if (row.spans) this.spans(row); else this.operations(row);
      g.restore();
    }
    if (this.hovered) this.mark(this.hovered);
  }

  axis() {
    const { g } = this, span = this.view.to - this.view.from;
    const raw = span / (this.width / 110), power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= raw);
    g.textAlign = "center";
    for (let t = Math.ceil(this.view.from / step) * step; t <= this.view.to; t += step) {
      const x = this.x(t);
      g.fillStyle = cssColor("line"); g.fillRect(x, HEAD - 6, 1, this.height);
      g.fillStyle = cssColor("soft"); g.fillText(t.toLocaleString("en"), Math.min(x, GUTTER + this.width - 26), 9);
    }
    g.textAlign = "left"; g.fillStyle = cssColor("soft"); g.fillText("cycles", 0, 9);
  }

  spans(row) {
    const { g } = this, colors = this.activities.map((a) => cssColor(colorName(a)));
    for (const span of row.spans) {
      const [begin, end, activity] = span;
      if (end < this.view.from || begin > this.view.to) continue;
      const x = this.x(begin), width = Math.max(this.x(end) - x, 0.6);
      const waits = this.activities[activity] === "wait";
      g.fillStyle = colors[activity];
      if (waits) g.fillRect(x, row.y + 5, width, ROW - 10);
      else g.fillRect(x, row.y + 1, width, ROW - 2);
    }
  }

  operations(row) {
    const { g } = this;
    g.fillStyle = g.strokeStyle = cssColor(engineColor(row.engine));
    for (const [issued, begin, free, end] of row.operations) {
      if (end < this.view.from || issued > this.view.to) continue;
      g.globalAlpha = 0.28;
      g.fillRect(this.x(issued), row.y + ROW / 2 - 1, Math.max(this.x(end) - this.x(issued), 0.6), 2);
      g.globalAlpha = 1;
      const x = this.x(begin), width = this.x(free) - x;
      g.fillRect(x, row.y + 1, Math.max(width - (width > 4 ? 0.7 : 0), 0.6), ROW - 2);
    }
  }

  // What is hovered, and of a wait the operation that ended it.
  mark({ row, span, operation }) {
    const { g } = this;
    g.strokeStyle = cssColor("ink"); g.lineWidth = 1.4;
    const [from, to] = span ? span : [operation[1], operation[2]];
    g.strokeRect(this.x(from), row.y, Math.max(this.x(to) - this.x(from), 1), ROW);
    if (!span || this.activities[span[2]] !== "wait") return;
    for (const other of this.rows) {
      const found = (other.operations || []).find((done) => done[3] === span[1]);
      if (!found) continue;
      const y = other.y + ROW / 2;
      g.strokeRect(this.x(found[1]), other.y, Math.max(this.x(found[2]) - this.x(found[1]), 1), ROW);
      g.setLineDash([4, 3]); g.beginPath();
      g.moveTo(this.x(found[2]), y); g.lineTo(this.x(span[1]), y);
      g.lineTo(this.x(span[1]), row.y + ROW / 2); g.stroke(); g.setLineDash([]);
      return;
    }
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const row = this.rows.find((r) => y >= r.y && y < r.y + ROW);
    if (!row || x < GUTTER) return null;
    const t = this.cycle(x), near = (2 * (this.view.to - this.view.from)) / this.width;
    if (row.spans) {
      const span = row.spans.find((s) => t >= s[0] - near && t < s[1] + near);
      return span ? { row, span } : null;
    }
    const busy = row.operations.find((o) => t >= o[1] - near && t < o[2] + near);
    const operation = busy || row.operations.find((o) => t >= o[0] && t < o[3]);
    return operation ? { row, operation } : null;
  }

  tip({ row, span, operation }) {
    const number = (n) => n.toLocaleString("en"), { recording } = this;
    const place = (n) => {
      const { at, text, code } = placeOf(recording, n);
      return `<b>${escaped(at)}</b><code>${escaped(code || text)}</code>` +
        (code ? `<code>${escaped(text)}</code>` : "");
    };
    if (operation) {
      const [issued, begin, free, end, instruction, warp, amount, count] = operation;
      const what = row.engine === "tensor cores" ? "FLOP (as bf16)" : "bytes";
      return `<b>${row.engine}</b>: ${number(amount)} ${what}${count > 1 ? ` in ${count} operations` : ""},
        begun by warp ${warp}<br>issued ${number(issued)}, busy ${number(begin)}–${number(free)},
        complete ${number(end)}<br>${place(instruction)}`;
    }
    const [begin, end, activity, instruction, endedBy, barrier, waited, pieces] = span;
    const name = this.activities[activity], length = number(end - begin);
    const title = name === "wait" ? `waits for ${escaped(barrier)}` : name;
    return `<b>warp ${row.warp} ${title}</b>, ${length} cycles (${number(begin)}–${number(end)})` +
      (pieces > 1 ? `<br>${number(pieces)} pieces, ${number(waited)} cycles of waiting; the longest:` : "") +
      `<br>${place(instruction)}` + (endedBy >= 0 ? `ended by ${place(endedBy)}` : "");
  }

  listen() {
    const { canvas, view } = this, tip = document.getElementById("tip");
    let dragged = null;
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      view.zoom(Math.exp(event.deltaY / 240), this.cycle(event.offsetX));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      dragged = { x: event.clientX, from: view.from };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointerup", () => { dragged = null; });
    canvas.addEventListener("dblclick", (event) => view.zoom(0.4, this.cycle(event.offsetX)));
    canvas.addEventListener("pointermove", (event) => {
      if (dragged) {
        view.move(dragged.from - ((event.clientX - dragged.x) / this.width) * (view.to - view.from));
        return;
      }
      const found = this.at(event);
      this.hovered = found;
      this.draw();
      tip.style.display = found ? "block" : "none";
      if (!found) return;
      tip.innerHTML = this.tip(found);
      const left = Math.min(event.clientX + 16, innerWidth - tip.offsetWidth - 12);
      const below = event.clientY + 18 + tip.offsetHeight < innerHeight;
      tip.style.left = `${left}px`;
      tip.style.top = `${below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12}px`;
    });
    canvas.addEventListener("pointerleave", () => {
      this.hovered = null; tip.style.display = "none"; this.draw();
    });
  }
}
