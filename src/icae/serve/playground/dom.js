// Building elements. Text is only ever set as text, never parsed as HTML.

/**
 * Make an element.
 * @param {string} tag Its name.
 * @param {Object} [properties] Properties; `class`, `data` (an object), `aria` (an object) and
 *   `on` (listeners by event) are taken apart, names with a dash and `role`, `for` and
 *   `colspan` are attributes.
 * @param {...(Node|string|null)} children Elements or text; null is left out.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") {
      for (const [key, told] of Object.entries(value)) element.setAttribute(`aria-${key}`, told);
    } else if (name === "on") {
      for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    } else if (name.includes("-") || ["role", "for", "scope", "list"].includes(name)) {
      element.setAttribute(name, value);
    } else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Tell people who do not see the page what has changed. */
export function say(text) {
  byId("said").textContent = text;
}

/** A message of the page: an error if `kind` is "bad". */
export function notice(text, kind = "") {
  return make("p", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : undefined }, text);
}

/** Say above the view what went wrong. */
export function complain(error) {
  byId("problem").replaceChildren(notice(error.message, "bad"));
}

/** Let a dialog of the page ask; resolves with its returnValue. */
export function ask(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}
