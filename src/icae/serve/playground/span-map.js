// The spans of a memory as small cells: how far the work is, then how faithfully each is held.

import { make } from "./dom.js";
import { level, spanInWords, spanShade } from "./fidelity-text.js";

const MOST_CELLS = 600;
const STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };

/** Cells that fill while spans are compressed. */
export function workMap() {
  const element = make("div", { class: "map", aria: { hidden: "true" } });
  const show = (done, spans) => {
    const cells = Math.min(spans, MOST_CELLS);
    while (element.children.length < cells) element.append(make("i"));
    const filled = Math.floor((done / spans) * cells);
    [...element.children].forEach((cell, at) => cell.classList.toggle("done", at < filled));
  };
  return { element, show };
}

/**
 * Cells to choose a span with, by mouse or arrow keys.
 * @param {Object[]} spans Spans; of very many, neighbours share a cell.
 * @param {function(number): void} onChoose Gets the index of the first span of a cell.
 */
export function spanMap(spans, onChoose) {
  const size = Math.ceil(spans.length / MOST_CELLS);
  const groups = [];
  for (let at = 0; at < spans.length; at += size) groups.push(spans.slice(at, at + size));
  const told = make("p", { class: "hint told" }, "One cell for each span. Choose one to find it in the text.");
  const cells = groups.map((group, at) =>
    make("i", {
      id: `cell-${at}`,
      class: shade(group),
      role: "option",
      title: words(group),
      aria: { label: words(group), selected: "false" },
    }),
  );
  const map = make(
    "div",
    { class: "map choosable", tabIndex: 0, role: "listbox", aria: { label: "Spans", orientation: "horizontal" } },
    ...cells,
  );
  let chosen = -1;
  const choose = (at) => {
    cells[chosen]?.setAttribute("aria-selected", "false");
    chosen = Math.max(0, Math.min(at, cells.length - 1));
    cells[chosen].setAttribute("aria-selected", "true");
    map.setAttribute("aria-activedescendant", cells[chosen].id);
    told.textContent = words(groups[chosen]);
    onChoose(groups[chosen][0].index);
  };
  map.addEventListener("click", ({ target }) => {
    const at = cells.indexOf(target);
    if (at >= 0) choose(at);
  });
  map.addEventListener("keydown", (event) => {
    const goals = { Home: 0, End: cells.length - 1 };
    const goal = event.key in STEPS ? chosen + STEPS[event.key] : goals[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    choose(goal);
  });
  return make("div", {}, map, told);
}

function shade(group) {
  if (group.every((span) => span.kind === "verbatim")) return "verbatim";
  const measured = group.filter((span) => span.fidelity !== null);
  if (measured.length === 0) return "unmeasured";
  if (group.length === 1) return spanShade(group[0]);
  return `f${level(measured.reduce((sum, span) => sum + span.fidelity, 0) / measured.length)}`;
}

function words(group) {
  if (group.length === 1) return spanInWords(group[0]);
  return `Spans ${group[0].index} to ${group.at(-1).index}; the first is ${spanInWords(group[0])}`;
}
