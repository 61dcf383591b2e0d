// The memories that exist, newest first, as links to their views.

import { receive } from "./api.js";
import { byId, complain, make } from "./dom.js";
import { count, percent, times } from "./figures.js";

const PAGE = 50;
const AGAIN_MS = 1500;

/** The list at the side. */
export class MemoryList {
  #bodies = [];
  #selected = null;
  #pages = 1;
  #timer = null;

  constructor() {
    byId("more-memories").addEventListener("click", () => {
      this.#pages += 1;
      this.refresh().catch(complain);
    });
  }

  /** Mark the memory that is shown. */
  select(id) {
    this.#selected = id;
    this.#draw();
  }

  /** Show what a view has learnt of a memory. */
  note(body) {
    this.#bodies = this.#bodies.map((known) => (known.id === body.id ? body : known));
    this.#draw();
  }

  /** Ask the server again; while a memory is being made, go on asking. */
  async refresh() {
    clearTimeout(this.#timer);
    const bodies = [];
    let more = true;
    for (let page = 0; more && page < this.#pages; page += 1) {
      const after = bodies.length > 0 ? `&after=${bodies.at(-1).id}` : "";
      const answer = await receive(`v1/memories?limit=${PAGE}${after}`);
      bodies.push(...answer.data);
      more = answer.has_more;
    }
    this.#bodies = bodies;
    byId("more-memories").hidden = !more;
    this.#draw();
    if (bodies.some((body) => body.status === "in_progress")) {
      this.#timer = setTimeout(() => this.refresh().catch(() => {}), AGAIN_MS);
    }
  }

  #draw() {
    byId("no-memories").hidden = this.#bodies.length > 0;
    const items = this.#bodies.map((body) => {
      const current = body.id === this.#selected;
      const link = make(
        "a",
        { href: `./#${body.id}`, aria: current ? { current: "page" } : {} },
        make("span", { class: "name", dir: "auto" }, body.name),
        make("span", { class: "facts" }, facts(body)),
      );
      return make("li", {}, link);
    });
    const focused = document.activeElement?.closest?.("#memories a")?.hash;
    byId("memories").replaceChildren(...items);
    if (focused) items.find((item) => item.firstChild.hash === focused)?.firstChild.focus();
  }
}

function facts(body) {
  if (body.status === "failed") return "could not be made";
  if (body.status === "in_progress") {
    const { spans_done: done, spans } = body.progress;
    return spans > 0 ? `in progress, ${Math.round((100 * done) / spans)} %` : "waits for its turn";
  }
  const held = body.fidelity === null ? "" : ` · ${percent(body.fidelity)}`;
  return `${count(body.tokens)} tokens · ${times(body.ratio)}${held}`;
}
