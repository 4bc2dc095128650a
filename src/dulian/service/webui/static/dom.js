// Elements made in one line. Texts become text nodes, so that no name of a file is ever HTML.
const SVG = "http://www.w3.org/2000/svg";

export function byId(id) {
  return document.getElementById(id);
}

/** An element: `class`, `text`, `on` (handlers by event) and `data` are special, null and false are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An icon out of the page's own set, hidden from screen readers: the words beside it are what counts. */
export function icon(name) {
  const use = svg("use", { href: `#icon-${name}` });
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, use);
}

/** A button with words, and an icon before them where one is named. */
export function button(text, { iconName = null, onClick, ...attributes }) {
  const content = iconName ? [icon(iconName)] : [];
  return el("button", { type: "button", on: { click: once(onClick) }, ...attributes }, ...content, el("span", { text }));
}

/** Deaf to the second half of a double click, which would hit whatever the first half has put in its place. */
export function once(handler) {
  return (event) => event.detail < 2 && handler(event);
}
