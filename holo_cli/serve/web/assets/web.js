// What every page of `holo serve` shares: words, requests with the key, the language switch.
// Texts of models and names of runs are only ever inserted as text.
"use strict";

// sessionStorage is of this tab alone; localStorage keeps the language. Both may be switched off or
// full: then a value is not kept, and the answer to a new one is false.
holo.stored = (area, name, value) => {
  try {
    if (value === undefined) return window[area].getItem(name);
    window[area].setItem(name, value);
    return true;
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
  return value === undefined ? null : false;
};

holo.lang = holo.stored("localStorage", "holo.lang") || document.documentElement.lang;
if (holo.lang === "ko") Object.assign(holo.words, holo.korean);
document.documentElement.lang = holo.lang;

// holo.fill("{0} of {1}", 1, 2) -> "1 of 2"
holo.fill = (text, ...values) => text.replace(/\{(\d)\}/g, (_, i) => String(values[i]));

holo.number = (value, digits = 3) => Number.isFinite(value)
  ? value.toLocaleString(holo.lang, { maximumSignificantDigits: digits }) : "–";

holo.count = value => Number.isFinite(value) ? value.toLocaleString(holo.lang, { maximumFractionDigits: 0 }) : "–";

holo.id = name => document.getElementById(name);

holo.sayAll = root => {
  for (const each of root.querySelectorAll("[data-say]")) each.textContent = holo.say(each.textContent.trim());
  for (const each of root.querySelectorAll("[data-label]")) each.setAttribute("aria-label", holo.say(each.dataset.label));
  for (const each of root.querySelectorAll("[data-hint]")) each.placeholder = holo.say(each.dataset.hint);
};

// A request that failed, with a sentence for the reader.
holo.Failure = class extends Error {
  constructor(error, status = 0) {
    super(holo.explained(error));
    this.code = error.code;
    this.status = status;
  }
};

// The server's sentences are in English; the frequent ones are said in the reader's language.
holo.explained = error => ({
  queue_full: holo.say("Too many requests are waiting. Try again in a moment."),
  context_length_exceeded: holo.say("The text is longer than the model's context. Shorten it, or start a new conversation."),
  model_not_found: holo.say("The server no longer has this model. Load the page again."),
  models_busy: holo.say("The memory for models is in use. Try again in a moment."),
  model_gone: holo.say("The model's checkpoint can no longer be read."),
  shutting_down: holo.say("The server is shutting down."),
  no_inside_view: holo.say("This model has nothing to show inside."),
  connection: holo.say("The server cannot be reached. Is holo serve still running?"),
  broken_off: holo.say("The connection was lost before the answer ended."),
}[error.code] || error.message);

holo.askKey = problem => new Promise(resolve => {
  const dialog = holo.id("key-dialog");
  holo.id("key-problem").textContent = problem;
  dialog.addEventListener("close", () => {
    holo.stored("sessionStorage", "holo.key", holo.id("key").value.trim());
    resolve();
  }, { once: true });
  holo.id("key").value = "";
  dialog.showModal();
});

// One dialog for all requests that wait for the key.
holo.keyAsked = null;
holo.needKey = problem => {
  holo.keyAsked ||= holo.askKey(problem).finally(() => { holo.keyAsked = null; });
  return holo.keyAsked;
};

// A header holds bytes: a key of other letters is sent as UTF-8.
holo.bytes = text => String.fromCharCode(...new TextEncoder().encode(text));

holo.send = async (path, options = {}) => {
  for (;;) {
    const key = holo.stored("sessionStorage", "holo.key");
    if (document.documentElement.dataset.key && !key) {
      await holo.needKey("");
      continue;
    }
    const headers = { ...(key ? { Authorization: `Bearer ${holo.bytes(key)}` } : {}), ...(options.body ? { "Content-Type": "application/json" } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new holo.Failure({ code: "connection" });
    }
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({ error: { message: `HTTP ${response.status}` } }));
    if (response.status !== 401) throw new holo.Failure(error, response.status);
    holo.stored("sessionStorage", "holo.key", "");
    document.documentElement.dataset.key = "yes";
    await holo.needKey(holo.say("The key is wrong."));
  }
};

holo.get = async path => (await holo.send(path)).json();
holo.post = async (path, content, signal) => (await holo.send(path, { method: "POST", body: JSON.stringify(content), signal })).json();

holo.models = async () => (await holo.get("/v1/models")).data;

// A model in a selector: its name, kind and size.
holo.modelName = model => {
  const { model: kind, parameters } = model.holo;
  const size = parameters >= 1e6 ? `${holo.number(parameters / 1e6)}M` : holo.count(parameters);
  return `${model.id} (${kind}, ${size})`;
};

holo.fillModels = (select, models, chosen) => {
  select.replaceChildren(...models.map(model => new Option(holo.modelName(model), model.id)));
  if (models.some(model => model.id === chosen)) select.value = chosen;
};

holo.problem = (place, error) => { place.textContent = error ? error.message : ""; };

holo.sayAll(document);
document.title = `${holo.say(document.querySelector("nav [aria-current]")?.textContent || "")} · holo`;
holo.id("language").textContent = holo.lang === "ko" ? "English" : "한국어";
holo.id("language").lang = holo.lang === "ko" ? "en" : "ko";
holo.id("language").addEventListener("click", () => {
  holo.stored("localStorage", "holo.lang", holo.lang === "ko" ? "en" : "ko");
  location.reload();
});
