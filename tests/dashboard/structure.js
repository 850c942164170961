// What a screen reader needs: controls without a name, headings that skip a level, tables without
// heads, ids that are there twice, and the landmarks.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (selector) => all(selector).filter((each) => each.checkVisibility());
  const named = (each) =>
    each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") ||
    each.labels?.length || each.textContent.trim();
  const controls = shown("button, input, select, [tabindex='0']");
  const levels = shown("h1, h2, h3, h4").map((each) => +each.tagName[1]);
  const tables = all("table").filter((each) => each.rows.length);
  const ids = all("[id]").map((each) => each.id);
  return {
    unnamed: controls.filter((each) => !named(each)).map((each) => each.outerHTML.slice(0, 120)),
    skipped: levels.filter((level, at) => level > (levels[at - 1] ?? 0) + 1).length,
    unheaded: tables.filter((each) => !each.querySelector("th[scope]")).length,
    ids: ids.length - new Set(ids).size,
    landmarks: ["header", "nav", "main", "footer"].filter((each) => document.querySelector(each)),
  };
}
