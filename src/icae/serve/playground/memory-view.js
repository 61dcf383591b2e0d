// The view of one memory: how far the work on it is, what it holds, and questions to it.

import { receive, send } from "./api.js";
import { askingPanel } from "./asking.js";
import { ask, byId, complain, make, notice, say } from "./dom.js";
import { fidelityText } from "./fidelity-text.js";
import { bytes, count, percent, seconds, some, times } from "./figures.js";
import { spanMap, workMap } from "./span-map.js";
import { spanTable } from "./span-table.js";

const FIRST_LOOK_MS = 150;
const SLOWEST_LOOK_MS = 1000;

/** Show a memory; while it is made, what is done of it. */
export async function showMemory(view, id) {
  const { root, signal } = view;
  try {
    let body = await receive(`v1/memories/${id}`, { signal });
    if (body.status === "in_progress" && body.tokens === undefined) {
      body = await watched(view, body);
      if (body.status === "ready") say(`${body.name} is compressed.`);
    }
    if (body.status === "failed" && body.tokens === undefined) showFailed(view, body);
    else await showReady(view, body);
  } catch (error) {
    if (!signal.aborted) root.replaceChildren(notice(error.message, "bad"));
  }
}

/** Wait until there is no work on a memory. */
async function settled(id, signal, onLook) {
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 1.3, SLOWEST_LOOK_MS)) {
    const body = await receive(`v1/memories/${id}`, { signal });
    if (body.status !== "in_progress") return body;
    onLook(body);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Show how far the making of a memory is until it ends. */
async function watched({ root, list, signal }, first) {
  document.title = `${first.name} · icae playground`;
  const begin = performance.now();
  const bar = make("progress", { aria: { label: "Spans compressed" } });
  const told = make("p", { class: "hint" }, "It waits for its turn.");
  const map = workMap();
  const stop = make("button", { type: "button" }, "Give up");
  stop.addEventListener("click", async () => {
    await send(`v1/memories/${first.id}`, { method: "DELETE" }).catch(() => {});
    location.hash = "#new";
    await list.refresh();
  });
  root.replaceChildren(
    make("h1", { dir: "auto" }, first.name),
    make("div", { class: "card work" }, make("div", { class: "row" }, bar, stop), told, map.element),
  );
  const look = (body) => {
    const { spans_done: done, spans } = body.progress;
    list.note(body);
    if (spans === 0) return;
    bar.max = spans;
    bar.value = done;
    const spent = seconds((performance.now() - begin) / 1000);
    told.textContent = `${count(done)} of ${some(spans, "span")} compressed, ${spent}`;
    map.show(done, spans);
  };
  look(first);
  const body = await settled(first.id, signal, look);
  list.refresh().catch(() => {});
  return body;
}

function showFailed(view, body) {
  document.title = `${body.name} · icae playground`;
  view.root.replaceChildren(
    make("h1", { dir: "auto" }, body.name),
    notice(`It could not be compressed. ${body.error?.message ?? ""}`, "bad"),
    make("div", { class: "row" }, deleteButton(view, body, "Remove it from the list")),
  );
}

async function showReady(view, body) {
  const { root, signal } = view;
  const spans = await receive(`v1/memories/${body.id}/spans`, { signal });
  document.title = `${body.name} · icae playground`;
  const text = fidelityText(spans);
  root.replaceChildren(
    make("div", { class: "row head" }, make("h1", { dir: "auto" }, body.name), actions(view, body)),
    ...(body.status === "failed" ? [notice(`The text was not changed. ${body.error.message}`, "bad")] : []),
    figures(body, spans),
    make(
      "section",
      { class: "card", aria: { labelledby: "held-heading" } },
      make("div", { class: "row head" }, make("h2", { id: "held-heading" }, "What it holds"), text.switches),
      spanMap(spans.spans, text.reveal),
      text.element,
      text.legend,
      spanTable(spans.spans, text.reveal),
      ...spans.documents.map((one, at) => editPanel(view, body, one, at, spans.documents)),
    ),
    askingPanel(body, spans.documents),
  );
  if (body.status === "in_progress") await whileChanging(view, body.id);
}

function figures(body, { spans }) {
  const verbatim = spans.filter((span) => span.kind === "verbatim");
  const kept = verbatim.reduce((sum, span) => sum + span.tokens, 0);
  const told = [
    ["Tokens of the text", count(body.tokens)],
    ["Positions it takes", count(body.positions)],
    ["Ratio", times(body.ratio)],
    ["Fidelity", percent(body.fidelity)],
    ["Verbatim tokens", count(kept)],
    ["On the disk", bytes(body.bytes)],
  ];
  const items = told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  return make("dl", { class: "figures" }, ...items);
}

/** What can be done with the whole memory. */
function actions(view, body) {
  const download = make("button", { type: "button" }, "Download .icae");
  download.addEventListener("click", async () => {
    try {
      await save(body);
    } catch (error) {
      complain(error);
    }
  });
  return make("div", { class: "row" }, download, deleteButton(view, body, "Delete"));
}

/** Let the browser save the file; a plain link could not carry the key. */
async function save(body) {
  const file = await (await send(`v1/memories/${body.id}/file`)).blob();
  const href = URL.createObjectURL(file);
  const name = body.name.replace(/\.[a-z]{1,8}$/i, "").replace(/[^\p{L}\p{N}._-]+/gu, "-");
  const link = make("a", { href, download: `${name || body.id}.icae` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

function deleteButton({ list }, body, label) {
  const remove = async () => {
    byId("delete-what").textContent = `${body.name} is removed from the server for good.`;
    if ((await ask(byId("delete-dialog"))) !== "delete") return;
    try {
      await send(`v1/memories/${body.id}`, { method: "DELETE" });
      location.hash = "#new";
      await list.refresh();
      say(`${body.name} is deleted.`);
    } catch (error) {
      complain(error);
    }
  };
  return make("button", { type: "button", class: "danger", on: { click: remove } }, label);
}

/** A form to change the text of a document; nothing where its text was not kept. */
function editPanel(view, body, document, at, documents) {
  if (document.text === null) return null;
  const id = `edited-${at}`;
  const text = make("textarea", { id, rows: 10, dir: "auto", spellcheck: false, value: document.text });
  const problem = make("div");
  const button = make("button", { type: "submit" }, "Save");
  const form = make(
    "form",
    {},
    make("label", { for: id }, "Only the spans that a change touches are compressed again."),
    text,
    make("div", { class: "row" }, button),
    problem,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const json = { ...change(document.text, text.value), document: at };
    if (json.start === json.end && json.text === "") {
      problem.replaceChildren(notice("The text is as it was."));
      return;
    }
    button.disabled = true;
    try {
      const headers = { Prefer: "respond-async", "If-Match": `"${body.version}"` };
      await send(`v1/memories/${body.id}/edit`, { method: "POST", json, headers });
      problem.replaceChildren(notice("Compressing what has changed…"));
      await whileChanging(view, body.id);
    } catch (error) {
      if (!view.signal.aborted) problem.replaceChildren(notice(error.message, "bad"));
    } finally {
      button.disabled = false;
    }
  });
  const of = documents.length > 1 ? ` of ${document.name}` : "";
  return make("details", {}, make("summary", {}, `Edit the text${of}`), form);
}

/** What of a text is another now, in code points as the server counts. */
function change(before, after) {
  const [old, now] = [[...before], [...after]];
  const most = Math.min(old.length, now.length);
  let start = 0;
  while (start < most && old[start] === now[start]) start += 1;
  let behind = 0;
  while (behind < most - start && old.at(-1 - behind) === now.at(-1 - behind)) behind += 1;
  return { start, end: old.length - behind, text: now.slice(start, now.length - behind).join("") };
}

/** Wait for a change, then show the changed memory. */
async function whileChanging(view, id) {
  const body = await settled(id, view.signal, () => {});
  if (view.signal.aborted) return;
  await showReady(view, body);
  byId("main").focus({ preventScroll: true }); // what had the focus is gone
  if (body.status === "ready") say("The text is changed.");
  view.list.refresh().catch(() => {});
}
