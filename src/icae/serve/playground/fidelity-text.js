// The text of a memory, shaded by how faithfully each token or span is held.

import { make } from "./dom.js";
import { percent, some } from "./figures.js";

const LEVELS = 10;
const SPANS_AT_A_TIME = 300;
const MODES = [
  ["token", "Tokens", "Probability of the right token"],
  ["span", "Spans", "Fidelity of the span"],
  ["plain", "Plain", "Fidelity of the span"],
];

/** Step of the shading for a share of 0..1, or null where it was not measured. */
export const level = (share) => (share === null ? null : Math.floor(share * LEVELS));

/** How a span is held, in words. */
export const heldAs = (span) =>
  span.kind === "verbatim" ? "verbatim" : `slots, ${(span.tokens / span.positions).toFixed(1)}×`;

/** A span in a sentence. */
export const spanInWords = (span) =>
  span.kind === "verbatim"
    ? `Span ${span.index}: kept verbatim, exact, ${some(span.tokens, "token")}`
    : `Span ${span.index}: ${some(span.tokens, "token")} in ${some(span.positions, "slot")}, ` +
      `fidelity ${percent(span.fidelity)}`;

/** Class of the shading of a span as a whole. */
export function spanShade(span) {
  if (span.kind === "verbatim") return "verbatim";
  return span.fidelity === null ? "unmeasured" : `f${level(span.fidelity)}`;
}

/**
 * The text with its switches and its legend.
 * @param {{documents: Object[], spans: Object[]}} held What the server says of the memory.
 * @returns {{element, switches, legend, reveal}} `reveal(index)` scrolls to a span and marks it.
 */
export function fidelityText({ documents, spans }) {
  const pane = make("div", {
    class: "text",
    tabIndex: 0,
    role: "region",
    aria: { label: "Text of the memory" },
    data: { shade: "token" },
  });
  const more = make("button", { type: "button", class: "quiet" }, "Show more of the text");
  const texts = documents.map((document) => cutter(document.text));
  const byIndex = new Map();
  let drawn = 0;

  const drawMore = () => {
    const next = spans.slice(drawn, drawn + SPANS_AT_A_TIME);
    const parts = [];
    for (const span of next) {
      const first = drawn === 0 || spans[drawn - 1].document !== span.document;
      if (first && documents.length > 1) parts.push(heading(documents[span.document]));
      if (first && documents[span.document].text === null) parts.push(notKept());
      const element = spanElement(span, texts[span.document]);
      byIndex.set(span.index, element);
      parts.push(element);
      drawn += 1;
    }
    more.before(...parts);
    more.hidden = drawn >= spans.length;
  };
  more.addEventListener("click", drawMore);
  pane.append(more);
  drawMore();

  const reveal = (index) => {
    while (!byIndex.has(index) && drawn < spans.length) drawMore();
    for (const marked of pane.querySelectorAll(".marked")) marked.classList.remove("marked");
    const element = byIndex.get(index);
    element.classList.add("marked");
    pane.scrollTop = element.offsetTop - pane.clientHeight / 3;
  };
  const scaled = make("span", {}, MODES[0][2]);
  return { element: pane, switches: switches(pane, scaled), legend: legend(scaled), reveal };
}

const heading = (document) => make("h3", { dir: "auto" }, document.name);

const notKept = () =>
  make("p", { class: "hint" }, "This memory came without its text, so it cannot be shown.");

/** One span; neighbours of one look share an element. */
function spanElement(span, cut) {
  const element = make("span", { class: `span ${spanShade(span)}`, title: spanInWords(span) });
  if (cut === null) return element;
  let run = null;
  for (const stretch of span.stretches) {
    const look = looks(span, stretch);
    if (run !== null && run.look === look) {
      run.end = stretch.end;
      continue;
    }
    if (run !== null) element.append(piece(run, cut));
    run = { look, start: stretch.start, end: stretch.end };
  }
  if (run !== null) element.append(piece(run, cut));
  return element;
}

const piece = ({ look, start, end }, cut) => make("span", { class: look }, cut(start, end));

function looks(span, { confidence, lost, critical }) {
  if (span.kind === "verbatim") return "verbatim";
  if (confidence === null) return "unmeasured";
  const shade = `c${level(confidence)}`;
  if (!lost) return shade;
  return critical ? `${shade} lost critical` : `${shade} lost`;
}

/**
 * A function that cuts a text at code points, as the server counts; cuts come in order.
 * @returns {?function(number, number): string}
 */
function cutter(text) {
  if (text === null) return null;
  let point = 0;
  let unit = 0;
  const unitAt = (wanted) => {
    for (; point < wanted && unit < text.length; point += 1) {
      unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
    }
    return unit;
  };
  return (start, end) => {
    if (start < point) point = unit = 0;
    const from = unitAt(start);
    return text.slice(from, unitAt(end));
  };
}

/** Radio buttons that say what the shading is of; `scaled` names it in the legend. */
function switches(pane, scaled) {
  const choose = (mode, scale) => {
    pane.dataset.shade = mode;
    scaled.textContent = scale;
  };
  const pills = MODES.map(([mode, name, scale]) =>
    make(
      "label",
      { class: "pill" },
      make("input", {
        type: "radio",
        name: "shade",
        value: mode,
        checked: mode === pane.dataset.shade,
        on: { change: () => choose(mode, scale) },
      }),
      make("span", {}, name),
    ),
  );
  return make("div", { class: "pills", role: "radiogroup", aria: { label: "Shading" } }, ...pills);
}

function legend(scaled) {
  const scale = [10, 8, 6, 4, 2, 0].map((step) => make("span", { class: `c${step}` }, `${10 * step} %`));
  return make(
    "p",
    { class: "legend" },
    make("span", { class: "scale" }, scaled, ...scale),
    make("span", { class: "verbatim" }, "verbatim, exact"),
    make("span", { class: "unmeasured" }, "not measured"),
    make("span", { class: "lost" }, "lost: another token is likelier"),
    make("span", { class: "lost critical" }, "lost number, name or code"),
  );
}
