// The spans of a memory as a table, made when it is opened.

import { make } from "./dom.js";
import { heldAs } from "./fidelity-text.js";
import { count, percent } from "./figures.js";

const COLUMNS = ["Span", "Characters", "Tokens", "Positions", "Held as", "Fidelity", "Lost", "In numbers, names, code"];

/** The table, folded; `onChoose` gets the index of a span that is to be shown. */
export function spanTable(spans, onChoose) {
  const element = make("details", {}, make("summary", {}, `All ${count(spans.length)} spans as a table`));
  const draw = () => {
    const head = COLUMNS.map((name) => make("th", { scope: "col" }, name));
    const rows = spans.map((span) => row(span, onChoose));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
    element.append(make("div", { class: "scroll", tabIndex: 0, role: "region", aria: { label: "Spans" } }, table));
  };
  element.addEventListener("toggle", draw, { once: true });
  return element;
}

function row(span, onChoose) {
  const lost = span.stretches.filter((stretch) => stretch.lost);
  const find = make(
    "button",
    { type: "button", class: "quiet", aria: { label: `Show span ${span.index} in the text` } },
    String(span.index),
  );
  find.addEventListener("click", () => onChoose(span.index));
  const told = [
    `${count(span.start)}–${count(span.end)}`,
    count(span.tokens),
    count(span.positions),
    heldAs(span),
    percent(span.fidelity),
    count(lost.length),
    count(lost.filter((stretch) => stretch.critical).length),
  ];
  return make("tr", {}, make("td", {}, find), ...told.map((text) => make("td", {}, text)));
}
