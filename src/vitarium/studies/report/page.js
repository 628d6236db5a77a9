"use strict";
// Figures are drawn when they come near, since a page of a large zoo has many of them.
const specs = JSON.parse(document.getElementById("specs").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
// in the explorer's frame, where nothing may be saved; a file on disk may
const isFramed = location.protocol !== "file:" && self.origin === "null";

function looks() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const text = { labelColor: color("--soft"), titleColor: color("--soft") };
  return {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: {
      ...text, titleFontWeight: 500, gridColor: color("--line"),
      domainColor: color("--faint"), tickColor: color("--faint"),
    },
    legend: text,
    header: text,
  };
}

function draw(place) {
  const name = place.dataset.figure;
  place.dataset.drawn = "yes";
  vegaEmbed(place, structuredClone(specs[name]), {
    config: looks(),
    renderer: "canvas",
    tooltip: { theme: dark.matches ? "dark" : "light" },
    downloadFileName: name,
    actions: !isFramed && { export: true, source: false, compiled: false, editor: false },
  }).catch((error) => { place.textContent = "This figure could not be drawn: " + error; });
}

const places = [...document.querySelectorAll(".chart")];
function drawWhatIsNear() {
  for (const place of places) {
    const { top, bottom } = place.getBoundingClientRect();
    if (!place.dataset.drawn && bottom > -1200 && top < innerHeight + 1200) draw(place);
  }
}
drawWhatIsNear();
["scroll", "resize"].forEach((event) => addEventListener(event, drawWhatIsNear, { passive: true }));
dark.addEventListener("change", () => places.filter((p) => p.dataset.drawn).forEach(draw));
addEventListener("beforeprint", () => places.filter((p) => !p.dataset.drawn).forEach(draw));

// A table is sorted by a click on a heading: numbers by size, then texts by letter.
function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace("−", "-").replace(/^[^\d.-]*(?=[\d-])/, ""));
  return { text, number: /^[-−\d.<p ]/.test(text) && !Number.isNaN(number) ? number : null };
}

document.querySelectorAll("th").forEach((heading) => heading.addEventListener("click", () => {
  const up = heading.getAttribute("aria-sort") !== "ascending";
  heading.closest("tr").querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = heading.closest("table").tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, ...key(row, heading.cellIndex) }));
  rows.sort((a, b) => {
    if ((a.number === null) !== (b.number === null)) return a.number === null ? 1 : -1;
    const order = a.number === null ? a.text.localeCompare(b.text) : a.number - b.number;
    return up ? order : -order;
  });
  body.append(...rows.map(({ row }) => row));
}));
