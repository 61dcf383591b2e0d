// Questions to a memory, beside the same question with the whole text.

import { streamChat } from "./api.js";
import { byId, make, notice, say } from "./dom.js";
import { bytes, count, seconds, some, times } from "./figures.js";

const LENGTHS = [32, 64, 128, 256, 512];
const USUAL_LENGTH = 64;

/** What was asked of each memory since the page was opened. */
const asked = new Map();

/**
 * The form, and the answers below it.
 * @param {Object} memory The memory.
 * @param {Object[]} documents Its documents; without their text there is only the memory to ask.
 */
export function askingPanel(memory, documents) {
  const text = documents.every((one) => one.text !== null)
    ? documents.map((one) => one.text).join("\n\n")
    : null;
  if (!asked.has(memory.id)) asked.set(memory.id, make("div", { class: "answers" }));
  const answers = asked.get(memory.id);
  const form = new AskingForm(text !== null, async ({ question, maxTokens, both }, signal) => {
    const exchange = new Exchange(memory, question, both ? text : null);
    answers.prepend(exchange.element);
    await exchange.run(maxTokens, signal);
  });
  return make(
    "section",
    { class: "card", aria: { labelledby: "ask-heading" } },
    make("h2", { id: "ask-heading" }, "Ask it"),
    form.element,
    answers,
  );
}

/** Takes one question at a time; `onAsk` gets it, and a signal that ends the answers. */
class AskingForm {
  #onAsk;

  constructor(hasText, onAsk) {
    this.#onAsk = onAsk;
    this.question = make("textarea", {
      id: "question",
      rows: 2,
      dir: "auto",
      required: true,
      placeholder: "What do you want to know?",
      on: { keydown: (event) => this.#sendOnEnter(event) },
    });
    const lengths = LENGTHS.map((one) =>
      make("option", { value: one, selected: one === USUAL_LENGTH }, `${one} tokens`),
    );
    this.length = make("select", { id: "length" }, ...lengths);
    this.both = make("input", { type: "checkbox", id: "both", checked: hasText, disabled: !hasText });
    this.button = make("button", { type: "submit", class: "primary" }, "Ask");
    this.stop = make("button", { type: "button", hidden: true }, "Stop");
    this.element = this.#form(hasText ? " With the full text, too" : " With the full text (it was not kept)");
  }

  #form(both) {
    return make(
      "form",
      { class: "ask", on: { submit: (event) => this.#ask(event) } },
      make("label", { for: "question", class: "unseen" }, "Question"),
      this.question,
      make(
        "div",
        { class: "row" },
        make("label", {}, this.both, both),
        make("label", { class: "length" }, "At most ", this.length),
        make("span", { class: "grow" }),
        this.stop,
        this.button,
      ),
    );
  }

  #sendOnEnter(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.element.requestSubmit();
  }

  async #ask(event) {
    event.preventDefault();
    const question = this.question.value.trim();
    if (this.button.disabled || question === "") return;
    const ending = new AbortController();
    this.stop.onclick = () => ending.abort();
    this.button.disabled = true;
    this.stop.hidden = false;
    const maxTokens = Number(this.length.value);
    await this.#onAsk({ question, maxTokens, both: this.both.checked }, ending.signal);
    this.stop.hidden = true;
    this.button.disabled = false;
  }
}

/** A question with its answers, one after the other so that their times can be compared. */
class Exchange {
  constructor(memory, question, text) {
    const parts = [
      { type: "memory", id: memory.id },
      { type: "text", text: question },
    ];
    this.sides = [new Side("With the memory", parts)];
    if (text !== null) this.sides.push(new Side("With the full text", `${text}\n\n${question}`));
    const columns = this.sides.map((side) => side.element);
    this.element = make(
      "article",
      {},
      make("h3", { dir: "auto" }, question),
      make("div", { class: "sides" }, ...columns),
    );
  }

  async run(maxTokens, signal) {
    for (const side of this.sides) await side.run(maxTokens, signal);
    const costs = this.sides.map((side) => side.cost);
    if (costs.length === 2 && costs.every((cost) => cost !== null)) {
      this.sides.forEach((side, at) => side.compare(costs[1 - at]));
    }
    if (!signal.aborted) say("The answers are there.");
  }
}

/**
 * Figures of an answer: name, field of the cost, how it is shown. The last token comes later in
 * a longer answer, so it is told with their number and not compared.
 */
const SHOWN = [
  ["Tokens read", "tokens", count],
  ["KV cache", "bytes", bytes],
  ["First token", "first", seconds],
  ["Last token", "seconds", seconds],
];

class Side {
  constructor(title, content) {
    this.content = content;
    this.cost = null;
    this.answer = make("p", { class: "answer", dir: "auto" });
    this.figures = make("dl", { class: "cost" });
    this.state = make("span", { class: "hint" }, "waits");
    this.element = make(
      "section",
      { class: "side-answer" },
      make("div", { class: "row head" }, make("h4", {}, title), this.state),
      this.answer,
      this.figures,
    );
  }

  async run(maxTokens, signal) {
    if (signal.aborted) {
      this.state.textContent = "stopped";
      return;
    }
    this.state.textContent = "answers…";
    this.element.setAttribute("aria-busy", "true");
    const chat = {
      model: byId("served").textContent,
      messages: [{ role: "user", content: this.content }],
      max_tokens: maxTokens,
      auto_compress: 0,
    };
    try {
      const { usage, figures, finish } = await streamChat(chat, signal, (piece) => {
        this.answer.append(piece);
      });
      this.state.textContent = finish === "length" ? "cut at the limit" : "";
      if (this.answer.textContent.trim() === "") this.answer.append("(no text)");
      this.cost = {
        tokens: usage.prompt_tokens,
        written: usage.completion_tokens,
        bytes: figures.kv_bytes,
        first: figures.first_token_seconds,
        seconds: figures.seconds,
      };
      this.#showCost(null);
    } catch (error) {
      this.state.textContent = signal.aborted ? "stopped" : "";
      if (!signal.aborted) this.answer.after(notice(error.message, "bad"));
    } finally {
      this.element.removeAttribute("aria-busy");
    }
  }

  /** Show beside the figures those of the other side. */
  compare(other) {
    this.#showCost(other);
  }

  #showCost(other) {
    const rows = SHOWN.map(([name, field, shown]) => {
      const own = this.cost[field];
      const most = Math.max(own, other?.[field] ?? 0, 1e-9);
      const bar = make("span", { class: "bar", aria: { hidden: "true" } }, make("span"));
      bar.firstChild.style.setProperty("--share", own / most);
      const value = make("dd", {}, shown(own), make("span", { class: "less" }, this.#note(field, other)), other && bar);
      return make("div", {}, make("dt", {}, name), value);
    });
    this.figures.replaceChildren(...rows);
  }

  #note(field, other) {
    if (field === "seconds") return some(this.cost.written, "token");
    const factor = (other?.[field] ?? 0) / Math.max(this.cost[field], 1e-9);
    return factor >= 1.05 ? `${times(factor)} less` : "";
  }
}
