"use strict";

// Without this script the page lacks only its plots, sorting, filtering, saving and the choice of a theme.

const root = document.documentElement;
const UNITS = { ms: 1e-3, s: 1 };

// ---- tables ----

function valueOf(text) {
  const match = /^([+-]?[\d.]+(?:e[+-]?\d+)?)\s*(\w*)/.exec(text);
  return match === null ? null : Number(match[1]) * (UNITS[match[2]] ?? 1);
}

function compare(a, b) {
  const [x, y] = [valueOf(a), valueOf(b)];
  if (x !== null && y !== null) return x - y;
  if (x === null && y === null) return a.localeCompare(b, "en", { numeric: true });
  return x === null ? 1 : -1; // missing values come last
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
      for (const cell of headers) cell.removeAttribute("aria-sort");
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
    let matches = 0;
    for (const row of rows) {
      const text = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      matches += !row.hidden;
    }
    count.textContent = words.length ? `${matches} of ${rows.length} rows` : "";
  });
}

for (const table of document.querySelectorAll("table.numeric")) if (table.tHead) makeSortable(table);
for (const paragraph of document.querySelectorAll(".filter")) makeFilter(paragraph);

// ---- embedded data ----

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%:()*+-;,=.?@^_`{|}~";

// Decodes base 85 as html.py writes it: five digits, highest first, are four bytes; the last group may be shorter.
function decode(text) {
  const values = new Uint8Array(128);
  [...DIGITS].forEach((digit, value) => (values[digit.charCodeAt(0)] = value));
  const bytes = new DataView(new ArrayBuffer(Math.ceil(text.length / 5) * 4));
  for (let start = 0; start < text.length; start += 5) {
    let word = 0;
    for (let index = start; index < start + 5; index++) {
      word = word * 85 + (index < text.length ? values[text.charCodeAt(index)] : 84);
    }
    bytes.setUint32((start / 5) * 4, word);
  }
  return new Uint8Array(bytes.buffer, 0, Math.floor((text.length * 4) / 5));
}

async function unpack(id) {
  const bytes = decode(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream);
}

// Restores the rows that records.py folded into columns.
function unfold(folded) {
  if (Array.isArray(folded)) return folded;
  if ("lengths" in folded) {
    const items = unfold(folded.items);
    let next = 0;
    return folded.lengths.map((length) => (length === null ? null : items.slice(next, (next += length))));
  }
  const columns = Object.entries(folded.columns).map(([key, column]) => [key, unfold(column).values()]);
  const values = Object.fromEntries(columns);
  return folded.rows.map((index) => {
    const shape = folded.shapes[index];
    return shape && Object.fromEntries(shape.map((key) => [key, values[key].next().value]));
  });
}

// Restores the records that records.py packed: a list of samples was replaced by its length and its unit in ns.
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
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // The browser opens the address some time after the click.
});

// ---- plots ----

const figures = JSON.parse(document.getElementById("figures").textContent);
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

function themeLayout() {
  const style = getComputedStyle(root);
  const [text, soft, line] = ["--text", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
  const modebar = { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: text };
  return { font: { color: text, size: 13 }, xaxis: axis, yaxis: axis, modebar };
}

function layoutOf(figure) {
  const themed = themeLayout();
  const narrow = root.clientWidth < 640;
  const layout = {
    ...figure.layout,
    font: themed.font,
    modebar: themed.modebar,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: narrow ? 54 : 60, r: 10, t: 10, b: 50 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...figure.layout.legend },
    hoverlabel: { font: { size: 13 } },
    height: parseInt(document.getElementById(figure.id).style.minHeight, 10),
  };
  for (const axis of ["xaxis", "yaxis"]) layout[axis] = { ...themed[axis], ...figure.layout[axis] };
  if (narrow && layout.yaxis.type === "category") layout.yaxis.tickfont = { size: 9 };
  return layout;
}

function draw(figure) {
  return Plotly.react(figure.id, figure.traces, layoutOf(figure), CONFIG);
}

const idle = window.requestIdleCallback ?? ((task) => setTimeout(task, 1));
const nextIdle = () => new Promise((resolve) => idle(resolve));

async function drawAll() {
  for (const figure of figures) {
    await nextIdle(); // keeps the page responsive between plots
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

let themeBeforePrint;
addEventListener("beforeprint", () => {
  themeBeforePrint = root.dataset.theme;
  root.dataset.theme = "light";
  recolor();
});
addEventListener("afterprint", () => {
  if (themeBeforePrint === undefined) delete root.dataset.theme;
  else root.dataset.theme = themeBeforePrint;
  recolor();
});

requestAnimationFrame(() => setTimeout(start)); // after the text is painted
