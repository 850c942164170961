// Nodes: made from text only, never from markup, and written only where something changed.

const SVG = "http://www.w3.org/2000/svg";

/** A new element; `attributes` with a value of null or false are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** A new SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attr(node, name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** The element with that id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set an attribute, or take it away if `value` is null or false. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** Make `text` the only content of `node`. */
export function write(node, text) {
  const value = String(text);
  const first = node.firstChild;
  if (first === null) {
    if (value !== "") node.append(value);
  } else if (first.data === undefined) {
    node.textContent = value;
  } else if (first.data !== value) {
    first.data = value; // its node stays, which spares the layout of what is around it
  }
}

/** Show or hide `node`. */
export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/** Fill a bar up to a share from 0 to 1. */
export function fill(bar, share = 0) {
  const value = share.toFixed(3);
  if (bar.dataset.share === value) return;
  bar.dataset.share = value;
  bar.style.setProperty("--share", value);
}

/** The descendants of `node` that have a `data-part`, by its value. */
export function parts(node) {
  const found = {};
  for (const each of node.querySelectorAll("[data-part]")) found[each.dataset.part] = each;
  return found;
}

/** A picture from the sprite in the page. */
export function picture(id, name = "shape") {
  return svg("svg", { class: name, "aria-hidden": "true" }, svg("use", { href: `#${id}` }));
}

/** A table's head: `columns` are pairs of a text and a class. */
export function head(columns) {
  const cells = columns.map(([text, name]) => {
    const cell = el("th", { scope: "col", role: "columnheader", class: name });
    cell.append(text);
    return cell;
  });
  return el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...cells));
}

/** A table cell; the roles stay true where narrow screens lay a table out as a grid. */
export function cell(name, ...children) {
  return el("td", { role: "cell", class: name }, ...children);
}

/** Make `nodes` the children of `parent`, in that order, moving as few as that takes. */
export function arrange(parent, nodes) {
  const kept = new Set(nodes);
  for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove();
  let place = parent.firstChild;
  for (const node of nodes) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
}

/**
 * Children of a node that stand for items: made once for each key, changed in place, moved only
 * where the order changed.
 */
export class Items {
  /**
   * @param parent The node.
   * @param key Gives an item's key.
   * @param make Gives `{node, update(item)}` for a new item.
   */
  constructor(parent, key, make) {
    this.parent = parent;
    this.key = key;
    this.make = make;
    this.known = new Map();
  }

  show(items) {
    const before = this.known;
    this.known = new Map();
    for (const item of items) {
      const row = before.get(this.key(item)) ?? this.make(item);
      row.update(item);
      this.known.set(this.key(item), row);
    }
    arrange(this.parent, [...this.known.values()].map(({ node }) => node));
  }
}
