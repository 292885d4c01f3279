// A conversation as a tree: each message may have several that follow it, one of which is chosen.
// Editing a message or asking for another answer makes a sibling; nothing is lost.
"use strict";

holo.Conversation = class {
  constructor(saved) {
    const { nodes = {}, next = 1 } = saved || {};
    this.nodes = nodes;
    this.next = next;
    this.nodes[0] ||= { id: 0, parent: null, role: "root", children: [], chosen: null };
  }

  add(parent, role, text) {
    const id = this.next++;
    this.nodes[id] = { id, parent, role, text, pieces: [], note: "", children: [], chosen: null };
    this.nodes[parent].children.push(id);
    this.nodes[parent].chosen = id;
    return this.nodes[id];
  }

  // The chosen messages, first to last.
  path() {
    const found = [];
    for (let at = this.nodes[0]; at.chosen !== null;) found.push(at = this.nodes[at.chosen]);
    return found;
  }

  siblings(node) { return this.nodes[node.parent].children; }

  // Moves to the sibling `by` places on, if there is one.
  turn(node, by) {
    const all = this.siblings(node), to = all[all.indexOf(node.id) + by];
    if (to !== undefined) this.nodes[node.parent].chosen = to;
  }

  // The messages up to a node, as the API takes them.
  messages(node, system) {
    const found = [];
    for (let at = node; at.id !== 0; at = this.nodes[at.parent]) found.unshift({ role: at.role, content: at.text });
    return system ? [{ role: "system", content: system }, ...found] : found;
  }

  toJSON() { return { nodes: this.nodes, next: this.next }; }
};
