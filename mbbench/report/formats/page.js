"use strict";

// Everything works without this script but plots, sorting, filtering and the choice of a theme.

const root = document.documentElement;
const UNITS = { ms: 1e-3, s: 1 };

// ---- tables ----

function valueOf(text) {
  const found = /^([+-]?[\d.]+(?:e[+-]?\d+)?)\s*(\w*)/.exec(text);
  return found === null ? null : Number(found[1]) * (UNITS[found[2]] ?? 1);
}

function compare(a, b) {
  const [x, y] = [valueOf(a), valueOf(b)];
  if (x !== null && y !== null) return x - y;
  if (x === null && y === null) return a.localeCompare(b, "en", { numeric: true });
  return x === null ? 1 : -1; // what is missing comes last
}

function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [row.cells[column].textContent, row]);
  const missing = ([text]) => text === "—";
  rows.sort((a, b) => missing(a) - missing(b) || (descending ? compare(b[0], a[0]) : compare(a[0], b[0])));
  body.append(...rows.map(([, row]) => row));
}

function makeSortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

function makeFilter(paragraph) {
  const rows = [...paragraph.closest("section").querySelectorAll("table.numeric tbody tr")];
  const count = paragraph.querySelector("output");
  paragraph.hidden = false;
  paragraph.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}

for (const table of document.querySelectorAll("table.numeric")) if (table.tHead) makeSortable(table);
for (const paragraph of document.querySelectorAll(".filter")) makeFilter(paragraph);

// ---- what the file carries ----

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%:()*+-;,=.?@^_`{|}~";

// Base 85 as html.py writes it: five digits are four bytes, the first the highest; the last group may be cut.
function bytesOf(text) {
  const values = new Uint8Array(128);
  [...DIGITS].forEach((digit, value) => (values[digit.charCodeAt(0)] = value));
  const bytes = new DataView(new ArrayBuffer(Math.ceil(text.length / 5) * 4));
  for (let start = 0; start < text.length; start += 5) {
    let word = 0;
    for (let place = start; place < start + 5; place++) {
      word = word * 85 + (place < text.length ? values[text.charCodeAt(place)] : 84);
    }
    bytes.setUint32((start / 5) * 4, word);
  }
  return new Uint8Array(bytes.buffer, 0, Math.floor((text.length * 4) / 5));
}

async function unpack(id) {
  const bytes = bytesOf(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream);
}

// The rows that records.py folded into columns.
function unfold(folded) {
  if (Array.isArray(folded)) return folded;
  if ("lengths" in folded) {
    const items = unfold(folded.items);
    let next = 0;
    return folded.lengths.map((length) => (length === null ? null : items.slice(next, (next += length))));
  }
  const columns = Object.entries(folded.columns).map(([key, column]) => [key, unfold(column).values()]);
  const values = Object.fromEntries(columns);
  return folded.rows.map((place) => {
    const shape = folded.shapes[place];
    return shape && Object.fromEntries(shape.map((key) => [key, values[key].next().value]));
  });
}

// What records.py packed: in the place of its samples a list says how many there are, and in what unit of nanoseconds.
async function records() {
  const rows = unfold(await (await unpack("records")).json());
  const planes = new Uint8Array(await (await unpack("samples")).arrayBuffer());
  const total = planes.length / 8;
  let next = 0;
  for (const { measured } of rows) {
    for (const timed of [measured.latency, ...measured.served]) {
      if (timed === null) continue;
      const [count, unit] = timed.samples_ms;
      timed.samples_ms = Array.from({ length: count }, () => {
        let number = 0;
        for (let plane = 7; plane >= 0; plane--) number = number * 256 + planes[plane * total + next];
        next++;
        return (number * unit) / 1e6;
      });
    }
  }
  return rows.map((row) => JSON.stringify(row)).join("\n");
}

const save = document.getElementById("save");
save.hidden = false;
save.addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await records()], { type: "application/x-ndjson" }));
  link.download = "results.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
});

// ---- plots ----

const figures = JSON.parse(document.getElementById("figures").textContent);
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

function colors() {
  const style = getComputedStyle(root);
  const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
  return { font: { color: text, size: 13 }, xaxis: axis, yaxis: axis };
}

function layoutOf(figure) {
  const own = colors();
  const narrow = root.clientWidth < 640;
  const layout = {
    ...figure.layout,
    font: own.font,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: narrow ? 54 : 60, r: 10, t: 10, b: 50 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...figure.layout.legend },
    hoverlabel: { font: { size: 13 } },
    height: parseInt(document.getElementById(figure.id).style.minHeight, 10),
  };
  for (const axis of ["xaxis", "yaxis"]) layout[axis] = { ...own[axis], ...figure.layout[axis] };
  if (narrow && layout.yaxis.type === "category") layout.yaxis.tickfont = { size: 9 };
  return layout;
}

function draw(figure) {
  return Plotly.react(figure.id, figure.traces, layoutOf(figure), CONFIG);
}

const idle = window.requestIdleCallback ?? ((task) => setTimeout(task, 1));
const turn = () => new Promise((resolve) => idle(resolve));

async function drawAll() {
  for (const figure of figures) {
    await turn(); // the page answers between two plots
    await draw(figure);
  }
  root.dataset.drawn = "true";
}

async function start() {
  if (!figures.length) return;
  const script = document.createElement("script");
  script.textContent = await (await unpack("plotly")).text();
  document.head.append(script);
  await drawAll();
}

// ---- theme ----

const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function recolor() {
  theme.textContent = isDark() ? "Light" : "Dark";
  if (window.Plotly) figures.forEach(draw);
}

theme.hidden = false;
recolor();
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  recolor();
});
system.addEventListener("change", recolor);

let chosen;
addEventListener("beforeprint", () => {
  chosen = root.dataset.theme;
  root.dataset.theme = "light";
  recolor();
});
addEventListener("afterprint", () => {
  if (chosen === undefined) delete root.dataset.theme;
  else root.dataset.theme = chosen;
  recolor();
});

requestAnimationFrame(() => setTimeout(start)); // the text first
