// Builds the page from the data that it carries.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const SHOWN = 40; // rows of long tables

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function withUnit(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "%") return `${value.toFixed(1)} %`;
  if (unit !== "B" && unit !== "FLOP") {
    return Math.round(value).toLocaleString("en") + (unit ? ` ${unit}` : "");
  }
  let prefix = 0;
  while (value >= 1000 && prefix < 4) { value /= 1000; prefix++; }
  return `${Number(value.toPrecision(3))} ${["", "k", "M", "G", "T"][prefix]}${unit}`;
}

const dim = (d) => d.join("×");
const letter = (i) => String.fromCharCode(65 + i);
const tagged = (launches, i, text) => (launches.length > 1 ? `${letter(i)}: ${text}` : text);

function heading(group) {
  const box = element("div");
  group.launches.forEach((launch, i) => {
    box.append(element("h1", {}, tagged(group.launches, i, launch.kernel)));
    const cluster = launch.cluster.join() === "1,1,1" ? "" : `, cluster ${dim(launch.cluster)}`;
    box.append(element("p", { className: "sub" },
      `${data.names[i]}: ${data.archs[i]}, grid ${dim(launch.grid)}, block ${dim(launch.block)}${cluster}, ` +
      `${launch.dynamic_shared_bytes.toLocaleString("en")} B dynamic shared memory`));
  });
  return box;
}

function tiles(group) {
  const box = element("div", { className: "tiles" });
  const wanted = [
    ["longest CTA", "cycles of the longest CTA"], ["TMA busy", "TMA busy"],
    ["tensor cores busy", "tensor cores busy"], ["all", "instructions of warps"],
    ["operations", "of tensor cores"], ["TMA requests", "TMA requests"],
    ["copied in", "copied in from global memory"], ["read by MMAs", "of shared memory read by MMAs"],
  ];
  for (const [name, label] of wanted) {
    const row = group.figures.find((f) => f[1] === name || f[1].endsWith(" " + name));
    if (!row) continue;
    const [, , unit, values] = row, last = values.length - 1;
    const tile = element("div", { className: "tile" });
    tile.append(element("b", {}, withUnit(values[last], unit === "cycles" ? "" : unit)));
    if (last && values[0]) {
      tile.lastChild.append(element("em", {}, `${((values[last] ?? 0) / values[0]).toFixed(2)}× of A`));
    }
    tile.append(element("span", {}, label));
    box.append(tile);
  }
  return box;
}

function problems(group) {
  const card = element("div", { className: "card" }, element("h2", {}, "Findings"));
  group.launches.forEach((launch, i) => {
    if (!launch.problems.length) {
      card.append(element("p", { className: "fine" }, tagged(group.launches, i, "Nothing wrong was found.")));
    }
    for (const { kind, sentence, times } of launch.problems) {
      const title = `${tagged(group.launches, i, kind)}${times > 1 ? `, ${times.toLocaleString("en")} times` : ""}`;
      card.append(element("div", { className: "problem" }, element("b", {}, title), `\n${sentence}`));
    }
  });
  return card;
}

function legend(names) {
  const box = element("div", { className: "legend" });
  for (const name of names) {
    const dot = element("i");
    dot.style.background = `var(--${colorName(name)})`;
    box.append(element("span", {}, dot, name));
  }
  return box;
}

function timelines(group) {
  const shown = group.launches.filter((l) => l.recording && l.recording.timelines.length);
  if (!shown.length) return "";
  const view = new View(Math.max(...shown.map((l) => Math.max(...l.recording.timelines.map((t) => t.end)))));
  const button = (text, act) => element("button", { onclick: act }, text);
  const middle = () => (view.from + view.to) / 2;
  const card = element("div", { className: "card" }, element("div", { className: "bars" },
    element("h2", {}, "Timeline"),
    element("span", { className: "hint" }, "drag to move, ctrl + wheel or double click to zoom"),
    button("+", () => view.zoom(0.5, middle())), button("−", () => view.zoom(2, middle())),
    button("all", () => view.reset())));
  group.launches.forEach((launch, i) => {
    const recording = launch.recording;
    if (!shown.includes(launch)) return;
    const canvas = element("canvas"), note = element("p", { className: "hint" });
    const choose = element("select", {}, ...recording.timelines.map((t) =>
      element("option", {}, `CTA (${t.index.join(", ")})`)));
    const label = group.launches.length > 1 ? [element("b", {}, letter(i))] : [];
    card.append(element("div", { className: "bars" }, ...label, choose, note), canvas);
    const timeline = new Timeline(canvas, recording, data.activities, view);
    const show = () => {
      timeline.show(choose.selectedIndex);
      const text = recording.timelines[choose.selectedIndex].shortened;
      note.textContent = text && `${text}.`;
    };
    choose.onchange = show;
    show();
  });
  card.append(legend(data.activities));
  return card;
}

const WORK_ACTIVITY = { load: "memory", store: "memory", atomic: "memory", tensor_memory: "tensor memory",
  copy: "copy", mma: "MMA", synchronise: "synchronise" };

function roles(launch, title) {
  const recording = launch.recording;
  const card = element("div", { className: "card" }, element("h2", {}, title("Warp roles")));
  const table = element("table", {}, element("tr", {}, element("th", {}, "role"),
    element("th", { className: "n" }, "instructions"), element("th", { className: "n" }, "waiting"),
    element("th", {}, "where the cycles go")));
  for (const role of recording.roles) {
    const sums = {};
    for (const [work, cycles] of Object.entries(role.busy)) {
      const activity = WORK_ACTIVITY[work] || "compute";
      sums[activity] = (sums[activity] || 0) + cycles;
    }
    const total = Object.values(sums).reduce((a, b) => a + b, role.waiting) || 1;
    const bar = element("div", { className: "bar" });
    for (const activity of data.activities) {
      const cycles = activity === "wait" ? role.waiting : sums[activity];
      if (!cycles) continue;
      const part = element("i", { title: `${activity}: ${cycles.toLocaleString("en")} cycles` });
      part.style.width = `${(100 * cycles) / total}%`;
      part.style.background = `var(--${colorName(activity)})`;
      bar.append(part);
    }
    table.append(element("tr", {}, element("td", {}, role.name),
      element("td", { className: "n" }, role.instructions.toLocaleString("en")),
      element("td", { className: "n" }, `${((100 * role.waiting) / total).toFixed(0)} %`),
      element("td", {}, bar)));
  }
  card.append(table);
  return card;
}

function waits(launch, title) {
  const recording = launch.recording;
  const card = element("div", { className: "card" }, element("h2", {}, title("Waits, the longest first")));
  const table = element("table", {}, element("tr", {}, ...["who", "where", "for", "ended by"].map((t) =>
    element("th", {}, t)), ...["times", "cycles"].map((t) => element("th", { className: "n" }, t))));
  for (const wait of recording.waits.slice(0, SHOWN)) {
    const at = placeOf(recording, wait.instruction), by = placeOf(recording, wait.ended_by);
    table.append(element("tr", {}, element("td", {}, recording.roles[wait.role].name),
      element("td", { className: "place", title: at.code || at.text }, at.at),
      element("td", {}, wait.barrier),
      element("td", { className: "code", title: by.code || by.text }, by.at, ` ${by.text.split(" ")[0].slice(0, 34)}`),
      element("td", { className: "n" }, wait.times.toLocaleString("en")),
      element("td", { className: "n" }, wait.cycles.toLocaleString("en"))));
  }
  card.append(table);
  if (recording.waits.length > SHOWN) {
    card.append(element("p", { className: "hint" }, `and ${recording.waits.length - SHOWN} shorter ones`));
  }
  return card;
}

function lines(launch, title) {
  const recording = launch.recording, sums = new Map();
  recording.instructions.forEach(([, , , , executed], number) => {
    const { at, text, code } = placeOf(recording, number);
    const line = sums.get(at) || { at, code: code || text, count: 0, kinds: 0 };
    line.count += executed.reduce((a, b) => a + b, 0);
    line.kinds++;
    sums.set(at, line);
  });
  const all = [...sums.values()].filter((l) => l.count).sort((a, b) => b.count - a.count);
  const card = element("div", { className: "card" },
    element("h2", {}, title("Source lines, by executed instructions of warps")));
  const table = element("table", {}, element("tr", {}, element("th", { className: "n" }, "executed"),
    element("th", {}, ""), element("th", {}, "line"), element("th", {}, "code")));
  for (const line of all.slice(0, SHOWN)) {
    const part = element("i");
    part.style.cssText = `width:${(100 * line.count) / all[0].count}%;background:var(--compute)`;
    const bar = element("div", { className: "bar" }, part);
    bar.style.minWidth = "70px";
    table.append(element("tr", {}, element("td", { className: "n" }, line.count.toLocaleString("en")),
      element("td", {}, bar), element("td", { className: "place" }, line.at),
      element("td", { className: "code" }, line.code)));
  }
  card.append(table);
  return card;
}

function figures(group) {
  const two = group.launches.length > 1;
  const card = element("div", { className: "card" }, element("h2", {}, "Counters"));
  const heads = two ? ["A", "B", "B / A"] : [""];
  const table = element("table", {}, element("tr", {}, element("th", {}, ""),
    ...heads.map((t) => element("th", { className: "n" }, t))));
  let before = "";
  for (const [section, name, unit, values] of group.figures) {
    if (section !== before) {
      table.append(element("tr", { className: "section" }, element("td", { colSpan: heads.length + 1 }, section)));
    }
    before = section;
    const row = element("tr", {}, element("td", {}, name),
      ...values.map((v) => element("td", { className: "n", title: v ?? "" }, withUnit(v, unit))));
    if (two) {
      const ratio = values[0] && values[1] !== null ? `${(values[1] / values[0]).toFixed(2)}×` : "";
      row.append(element("td", { className: "n" }, ratio));
    }
    table.append(row);
  }
  card.append(table);
  return card;
}

function show(group) {
  main.replaceChildren(heading(group), tiles(group), problems(group), timelines(group));
  const recorded = group.launches.filter((l) => l.recording);
  for (const part of [roles, waits, lines]) {
    const box = element("div", { className: recorded.length > 1 ? "columns" : "" });
    recorded.forEach((launch) => {
      const i = group.launches.indexOf(launch);
      box.append(part(launch, (text) => tagged(group.launches, i, text)));
    });
    main.append(box);
  }
  main.append(figures(group));
}

const groups = document.getElementById("groups");
data.groups.forEach((group, i) => {
  groups.append(element("option", {}, `launch ${i + 1}: ${group.launches[0].kernel.slice(0, 60)}`));
});
groups.hidden = data.groups.length < 2;
groups.onchange = () => show(data.groups[groups.selectedIndex]);
show(data.groups[0]);
