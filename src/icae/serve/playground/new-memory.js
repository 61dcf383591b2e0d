// The view that makes a memory: of a pasted text, of a file, or of a memory file.

import { receive } from "./api.js";
import { make, notice } from "./dom.js";
import { bytes, some } from "./figures.js";

const RATIOS = [2, 4, 8, 16];
const USUAL_RATIO = 4;
const NAME_CHARS = 200;
const OWN_NAME_CHARS = 48;

/** Show the form. */
export function showNewMemory({ root, list }) {
  document.title = "New memory · icae playground";
  const form = new NewMemory(list);
  root.replaceChildren(form.element);
}

class NewMemory {
  #list;
  #file = null;

  constructor(list) {
    this.#list = list;
    this.text = make("textarea", {
      id: "text",
      rows: 12,
      dir: "auto",
      spellcheck: false,
      placeholder: "Paste a text here, or drop a file anywhere on this form.",
      on: { input: () => this.#tellSize() },
    });
    this.size = make("p", { class: "hint", id: "size" });
    this.picker = make("input", {
      id: "file",
      type: "file",
      class: "unseen",
      accept: ".txt,.md,.markdown,.html,.htm,.pdf,.docx,.epub,.rtf,.icae,text/*,application/pdf",
      on: { change: () => this.#take(this.picker.files[0] ?? null) },
    });
    this.chosen = make("div", { class: "chosen", hidden: true });
    this.name = make("input", { id: "name", maxLength: NAME_CHARS, autocomplete: "off" });
    this.problem = make("div");
    this.sent = make("progress", { max: 1, hidden: true, aria: { label: "File sent" } });
    this.submit = make("button", { type: "submit", class: "primary" }, "Compress");
    this.held = howHeld();
    this.element = this.#form();
    this.#listenForDrops();
  }

  #form() {
    return make(
      "form",
      { class: "new-memory", on: { submit: (event) => this.#send(event) } },
      make("h1", {}, "Compress a document"),
      make(
        "p",
        { class: "lead" },
        "The document becomes a memory: a few positions that the model reads in its place. " +
          "You see how faithfully each part is held before you rely on an answer.",
      ),
      this.#documentField(),
      this.held.element,
      make(
        "div",
        { class: "row" },
        make(
          "div",
          { class: "field grow" },
          make("label", { for: "name" }, "Name ", make("span", { class: "hint" }, "(optional)")),
          this.name,
        ),
        this.submit,
      ),
      this.sent,
      this.problem,
    );
  }

  #documentField() {
    return make(
      "div",
      { class: "card drop" },
      make("label", { for: "text" }, "Document"),
      this.text,
      this.chosen,
      make(
        "div",
        { class: "row under" },
        this.picker,
        make("label", { for: "file", class: "button" }, "Choose a file"),
        make("span", { class: "hint" }, "Text, Markdown, HTML, PDF, Word, EPUB, RTF, or a memory (.icae)"),
        this.size,
      ),
    );
  }

  #listenForDrops() {
    const over = (on) => this.element.classList.toggle("over", on);
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault();
      over(true);
    });
    this.element.addEventListener("dragleave", (event) => {
      if (!this.element.contains(event.relatedTarget)) over(false);
    });
    this.element.addEventListener("drop", (event) => {
      over(false);
      const [file] = event.dataTransfer.files;
      if (file === undefined) return; // a piece of text: the field takes it
      event.preventDefault();
      this.#take(file);
    });
  }

  #tellSize() {
    const { length } = this.text.value;
    this.size.textContent = length === 0 ? "" : some(length, "character");
  }

  /** Take a file, or none, in place of the text. */
  #take(file) {
    this.#file = file;
    this.text.hidden = file !== null;
    this.chosen.hidden = file === null;
    this.size.textContent = "";
    this.submit.textContent = isMemory(file) ? "Import" : "Compress";
    this.held.element.hidden = isMemory(file);
    this.problem.replaceChildren();
    if (file === null) {
      this.picker.value = "";
      this.#tellSize();
      this.text.focus();
      return;
    }
    const back = make(
      "button",
      { type: "button", class: "quiet", on: { click: () => this.#take(null) } },
      "Use a text instead",
    );
    this.chosen.replaceChildren(
      make("strong", { dir: "auto" }, file.name),
      make("span", { class: "hint" }, bytes(file.size)),
      back,
    );
  }

  async #send(event) {
    event.preventDefault();
    if (this.#file === null && this.text.value.trim() === "") {
      this.problem.replaceChildren(notice("Paste a text or choose a file first.", "bad"));
      this.text.focus();
      return;
    }
    this.submit.disabled = true;
    this.problem.replaceChildren();
    try {
      const made = await this.#posted();
      location.hash = `#${made.id}`;
      await this.#list.refresh();
    } catch (error) {
      this.problem.replaceChildren(notice(error.message, "bad"));
    } finally {
      this.submit.disabled = false;
      this.sent.hidden = true;
    }
  }

  #posted() {
    const own = this.name.value.trim();
    const headers = { Prefer: "respond-async" };
    if (this.#file === null) {
      const name = cleanName(own || firstWords(this.text.value));
      const json = { text: this.text.value, name, ...this.held.wanted() };
      return receive("v1/memories", { method: "POST", json, headers });
    }
    const name = cleanName(own || this.#file.name);
    const onSent = (share) => (this.sent.value = share);
    onSent(0);
    this.sent.hidden = false;
    if (isMemory(this.#file)) {
      const path = `v1/memories/import?name=${encodeURIComponent(name.replace(/\.icae$/i, ""))}`;
      const type = { "Content-Type": "application/octet-stream" };
      return receive(path, { method: "POST", body: this.#file, headers: type, onSent });
    }
    const body = new FormData();
    body.append("file", this.#file);
    body.append("name", name);
    for (const [field, value] of Object.entries(this.held.wanted())) body.append(field, value);
    return receive("v1/memories", { method: "POST", body, headers, onSent });
  }
}

/** The choice between a ratio and a minimal fidelity; `wanted()` is what the server is sent. */
function howHeld() {
  const radio = (value, checked) =>
    make("input", { type: "radio", name: "held", id: `held-${value}`, value, checked });
  const byRatio = radio("ratio", true);
  const byFidelity = radio("fidelity", false);
  const ratio = ratioPills(() => (byRatio.checked = true));
  const fidelity = fidelitySlider(() => (byFidelity.checked = true));
  const element = make(
    "fieldset",
    { class: "card held" },
    make("legend", {}, "How it is held"),
    make(
      "div",
      { class: "choice" },
      make("label", {}, byRatio, " At one ratio"),
      ratio.element,
      make("p", { class: "hint" }, "So many tokens of the text for each position the model reads."),
    ),
    make(
      "div",
      { class: "choice" },
      make("label", {}, byFidelity, " At a minimal fidelity"),
      fidelity.element,
      make(
        "p",
        { class: "hint" },
        "Each part at the highest ratio that holds so much of it; what none does stays verbatim.",
      ),
    ),
  );
  const wanted = () =>
    byFidelity.checked ? { min_fidelity: fidelity.value() } : { ratio: ratio.value() };
  return { element, wanted };
}

function ratioPills(onChange) {
  const inputs = RATIOS.map((ratio) =>
    make("input", {
      type: "radio",
      name: "ratio",
      id: `ratio-${ratio}`,
      value: ratio,
      checked: ratio === USUAL_RATIO,
      on: { change: onChange },
    }),
  );
  const pills = inputs.map((one) =>
    make("label", { class: "pill" }, one, make("span", {}, `${one.value}×`)),
  );
  const aria = { label: "Tokens per position" };
  const element = make("div", { class: "pills", role: "radiogroup", aria }, ...pills);
  return { element, value: () => Number(inputs.find((one) => one.checked).value) };
}

function fidelitySlider(onChange) {
  const input = make("input", { type: "range", id: "fidelity", min: 50, max: 100, value: 90 });
  const told = make("output", { for: "fidelity" });
  const tell = () => {
    told.textContent = `${input.value} %`;
    input.setAttribute("aria-valuetext", told.textContent);
  };
  input.addEventListener("input", () => {
    onChange();
    tell();
  });
  tell();
  const label = make("label", { for: "fidelity", class: "unseen" }, "Minimal fidelity");
  const element = make("div", { class: "range" }, label, input, told);
  return { element, value: () => Number(input.value) / 100 };
}

const isMemory = (file) => file !== null && file.name.toLowerCase().endsWith(".icae");

/** The start of a text, as its name. */
function firstWords(text) {
  const start = text.trim().slice(0, OWN_NAME_CHARS + 1);
  return start.length <= OWN_NAME_CHARS ? start : `${start.replace(/\s*\S*$/, "") || start}…`;
}

/** A name as the server takes it: one line, not too long. */
function cleanName(name) {
  const line = name.replace(/\p{C}+|\s+/gu, " ").trim();
  return [...line].slice(0, NAME_CHARS).join("") || "text";
}
