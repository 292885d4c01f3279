// Streams of the API, and one text that is being written: its pieces, its speed, its probability.
"use strict";

// The chunks of a stream, as they come. Throws holo.Failure where it ends too early.
holo.stream = async function* (path, content, signal) {
  const body = JSON.stringify({ ...content, stream: true });
  const response = await holo.send(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new holo.Failure({ code: "broken_off" });
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new holo.Failure(chunk.error);
        yield chunk;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw new holo.Failure({ code: "broken_off" });
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
};

// A text with what is known of its tokens. A piece is what one event brought: whole characters, and
// the tokens that made them, of which there are several where one is a part of a character.
holo.Writing = class {
  constructor() {
    Object.assign(this, { text: "", pieces: [], count: 0, sum: 0, began: performance.now(), first: 0, last: 0, finish: "" });
    this.waiting = [];
  }

  // tokens: [{token, logprob, bytes, top: [{token, logprob, bytes}]}]
  add(text, tokens, finish) {
    const now = performance.now();
    if (tokens.length) {
      this.first ||= now;
      this.last = now;
    }
    this.count += tokens.length;
    for (const token of tokens) this.sum += token.logprob || 0;
    this.waiting.push(...tokens);
    this.finish = finish || this.finish;
    if (!text && !finish) return null;
    if (!text && !this.waiting.length) return null;
    const piece = { text, tokens: this.waiting };
    this.waiting = [];
    this.text += text;
    this.pieces.push(piece);
    return piece;
  }

  get perSecond() {
    return this.count > 1 ? 1000 * (this.count - 1) / Math.max(this.last - this.first, 1) : NaN;
  }

  get meanLogprob() { return this.count ? this.sum / this.count : NaN; }

  get bitsPerByte() {
    const bytes = new TextEncoder().encode(this.text).length;
    return bytes ? -this.sum / Math.LN2 / bytes : NaN;
  }

  // In one line, for below a text.
  speed() {
    if (!this.count) return "";
    const parts = [holo.fill(holo.say("{0} tokens"), holo.count(this.count))];
    if (this.count > 1) parts.push(holo.fill(holo.say("{0} tokens/s"), holo.number(this.perSecond)));
    parts.push(holo.fill(holo.say("first after {0} s"), holo.number((this.first - this.began) / 1000, 2)));
    return parts.join(" · ");
  }
};

// The tokens of a chunk in one form, of either kind of request.
holo.tokensOf = choice => {
  const given = choice.logprobs;
  if (!given) return [];
  if (given.content) return given.content.map(({ token, logprob, bytes, top_logprobs }) => ({ token, logprob, bytes, top: top_logprobs.map(({ token, logprob, bytes }) => ({ token, logprob, bytes })) }));
  return given.tokens.map((token, i) => ({
    token, logprob: given.token_logprobs[i],
    top: Object.entries(given.top_logprobs[i] || {}).map(([token, logprob]) => ({ token, logprob })).sort((a, b) => b.logprob - a.logprob),
  }));
};

holo.textOf = choice => choice.delta ? choice.delta.content || "" : choice.text;
