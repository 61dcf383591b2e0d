// The page: which view is shown, and the list of memories beside it.

import { askForKey, forgetKey, hasKey, receive, showKeyButton } from "./api.js";
import { byId, complain } from "./dom.js";
import { MemoryList } from "./memory-list.js";
import { showMemory } from "./memory-view.js";
import { showNewMemory } from "./new-memory.js";

const list = new MemoryList();
let shown = new AbortController();

/** Show the view that the address names, and end what the one before was doing. */
async function route() {
  shown.abort();
  shown = new AbortController();
  const [id] = location.hash.match(/mem_[0-9a-f]{24}$/) ?? [null];
  list.select(id);
  const view = { root: byId("view"), list, signal: shown.signal };
  if (id === null) showNewMemory(view);
  else await showMemory(view, id);
}

/** Show the name of the model, and the memories that the key owns. */
async function begin() {
  try {
    const { model } = await receive("health");
    byId("served").textContent = model;
    await list.refresh();
  } catch (error) {
    complain(error);
  }
}

async function changeKey() {
  if (hasKey()) {
    forgetKey();
    location.hash = "#new";
    location.reload();
    return;
  }
  await askForKey(null).then(() => location.reload(), () => {});
}

byId("key-button").addEventListener("click", changeKey);
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close(""));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  byId("main").focus();
});
byId("new-link").addEventListener("click", () => {
  if (location.hash === "#new") route();
});
for (const event of ["dragover", "drop"]) {
  window.addEventListener(event, (drag) => {
    // A file that misses the form must not take the place of the page.
    if (drag.dataTransfer.types.includes("Files")) drag.preventDefault();
  });
}
window.addEventListener("hashchange", async () => {
  byId("problem").replaceChildren();
  await route();
  byId("main").focus({ preventScroll: true });
  window.scrollTo(0, 0);
});

if (hasKey()) showKeyButton();
await begin();
await route();
