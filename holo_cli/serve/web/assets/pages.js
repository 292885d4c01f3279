// The index of the HTML files in runs/, bench/ and pages/.
"use strict";
(() => {
  const id = holo.id;
  let pages = [];

  const row = page => {
    const link = holo.element("a", { href: page.href, target: "_blank", rel: "noopener", textContent: page.title || page.path });
    const when = new Date(1000 * page.modified).toLocaleString(holo.lang, { dateStyle: "short", timeStyle: "short" });
    return holo.element("tr", {}, holo.element("td", { className: "name" }, link), ...[page.path, when, `${holo.number(page.bytes / 1e6, 2)} MB`].map(textContent => holo.element("td", { textContent })));
  };

  const list = () => {
    const wanted = id("filter").value.trim().toLowerCase();
    const found = pages.filter(page => `${page.title} ${page.path}`.toLowerCase().includes(wanted));
    const heads = [holo.say("page"), holo.say("file"), holo.say("last written"), holo.say("size")];
    const head = holo.element("thead", {}, holo.element("tr", {}, ...heads.map(textContent => holo.element("th", { scope: "col", textContent }))));
    id("list").replaceChildren(head, holo.element("tbody", {}, ...found.map(row)));
    if (!found.length) id("list").replaceChildren(holo.element("caption", { textContent: pages.length ? holo.say("No page has that name.") : holo.say("There are no pages yet. holo visualize and holo bench write them.") }));
  };

  id("filter").addEventListener("input", list);
  const start = async () => {
    try {
      pages = (await holo.get("/api/pages")).pages;
      list();
    } catch (error) {
      if (!(error instanceof holo.Failure)) throw error;
      holo.problem(id("problem"), error);
    }
    document.body.dataset.ready = "yes";
  };
  start();
})();
