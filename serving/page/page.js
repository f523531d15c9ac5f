"use strict";
// The page of `vsehub serve`: it asks the API of the server that it came from, and nothing else.

const at = (id) => document.getElementById(id);
const ORIGINS = { model: ", which is the model's default, from its validation", index: ", calibrated for this index" };
const LARGEST = 4_000_000; // bytes of a picture that is sent as it is; a larger one is made smaller first
// characters that the page would obey: controls but tab and newline, and marks that turn the writing direction
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
let kept = null; // the token, where the browser keeps nothing for this page (in a frame, for instance)
let picture = null; // of the query: a data URL
let like = null; // {id, name} of the hit that is the query
let asked = new AbortController();
let urls = []; // of pictures that were fetched with the token

function token() {
  try {
    return sessionStorage.getItem("token");
  } catch {
    return kept;
  }
}

function keep(given) {
  kept = given;
  try {
    sessionStorage.setItem("token", given);
  } catch {} // it is kept until the page is left
}

async function call(path, options = {}) {
  const given = token();
  const headers = { ...options.headers, ...(given && { Authorization: `Bearer ${given}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await askToken(given !== null);
    return call(path, options);
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error(said?.error?.message ?? `the server answered ${answer.status}`);
  }
  return answer;
}

let asking = null; // one question for a token at a time
function askToken(wrong) {
  asking ??= new Promise((resolve, reject) => {
    const box = at("ask-token");
    at("token").placeholder = wrong ? "that was not it" : "";
    at("token").value = "";
    box.onclose = () => {
      asking = null;
      if (box.returnValue !== "go") return reject(new Error("A token is needed: load the page again to give it."));
      keep(at("token").value.trim());
      resolve();
    };
    box.returnValue = "";
    box.showModal();
  });
  return asking;
}

async function show(image, path, tries = 3) {
  try {
    await load(image, path);
  } catch (error) { // perhaps more requests than are answered at once
    if (tries === 1) throw error;
    await new Promise((resolve) => setTimeout(resolve, 1500));
    if (image.isConnected) await show(image, path, tries - 1);
  }
}

async function load(image, path) {
  if (token() === null) {
    image.src = path;
    return image.decode();
  }
  const url = URL.createObjectURL(await (await call(path)).blob());
  urls.push(url);
  image.src = url;
}

function tell(text, wrong = false, id = "told") {
  at(id).textContent = text;
  at(id).classList.toggle("wrong", wrong);
}

function cutoff() {
  const chosen = at("cutoff").value;
  return chosen === "own" ? at("least").valueAsNumber : chosen === "none" ? null : "auto";
}

function question() {
  const body = { k: at("count").valueAsNumber || 12, cutoff: cutoff() };
  const words = at("words").value.trim();
  if (like) return { ...body, like: like.id, ...(words && { plus: words }) };
  if (words) body.text = words;
  if (picture) body.image = picture.slice(picture.indexOf(",") + 1);
  if (words && picture) body.weight = at("weight").valueAsNumber;
  return body;
}

async function search() {
  const body = question();
  if (!body.text && !body.image && !body.like) return tell("Type some words or give a picture.", true);
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  history.replaceState(null, "", body.text && !body.image ? `?q=${encodeURIComponent(body.text)}` : location.pathname);
  tell("Searching ...");
  try {
    const headers = { "Content-Type": "application/json" };
    const found = await (await call("search", { method: "POST", body: JSON.stringify(body), headers, signal })).json();
    draw(found);
  } catch (error) {
    if (!signal.aborted) tell(error.message, true);
  }
}

function draw(found) {
  urls.forEach(URL.revokeObjectURL);
  urls = [];
  const hits = found.hits.map((hit) => ({ ...hit, name: shown(hit.name), caption: hit.caption && shown(hit.caption) }));
  at("hits").replaceChildren(...hits.map(card));
  if (found.hits.length) return tell(`${found.hits.length} of ${found.rows.toLocaleString()}, nearest first`);
  if (found.cutoff === null || !found.rows) return tell("The index is empty.");
  tell(`Nothing comes nearer than the cut-off, ${found.cutoff.toFixed(3)}${ORIGINS[found.cutoff_from] ?? ""}. `);
  at("told").append(button("Show the nearest", () => {
    at("cutoff").value = "none";
    at("cutoff").onchange();
    search();
  }));
}

function shown(text) {
  return text.replace(CONTROLS, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function card(hit, place) {
  const item = document.createElement("li");
  item.dataset.id = hit.id;
  const name = hit.box ? `${hit.name} [${hit.box.join(", ")}]` : hit.name;
  if (hit.picture) {
    const image = document.createElement("img");
    image.alt = hit.caption || name;
    image.loading = place < 4 ? "eager" : "lazy";
    const open = button("", () => enlarge(hit, name, false));
    open.className = "open";
    open.append(image);
    item.append(open);
    show(image, hit.picture.slice(1)).catch(() => { open.replaceWith(line("small", "This picture cannot be shown.")); });
  }
  const about = line("div", "");
  about.className = "about";
  about.append(line("b", `${place + 1}. ${hit.score.toFixed(3)}`), " ", line("small", name));
  if (hit.caption) about.append(line("div", hit.caption));
  const acts = line("div", "");
  acts.className = "acts";
  acts.append(button("similar", () => { setLike({ id: hit.id, name }); search(); }));
  if (hit.picture && document.body.dataset.belief) acts.append(button("belief", () => enlarge(hit, name, true)));
  item.append(about, acts);
  return item;
}

async function enlarge(hit, name, belief) {
  at("large-name").textContent = `${name}  ${hit.score.toFixed(3)}`;
  at("pair").classList.toggle("two", belief);
  at("belief").hidden = !belief;
  at("large-picture").alt = hit.caption || name;
  at("belief").alt = "the same picture, light where the model looks most";
  at("large-picture").removeAttribute("src");
  at("belief").removeAttribute("src");
  tell(belief ? "Light is what the model relies on most." : "", false, "large-told");
  at("large").showModal();
  try {
    await show(at("large-picture"), `${hit.picture.slice(1)}?side=${belief ? 448 : 1280}`);
    if (belief) await show(at("belief"), `belief/${hit.id}`);
  } catch (error) {
    tell("This picture cannot be shown.", true, "large-told");
  }
}

function line(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function button(text, act) {
  const element = line("button", text);
  element.type = "button";
  element.onclick = act;
  return element;
}

function setLike(hit) {
  like = hit;
  if (hit) {
    setPicture(null);
    at("words").value = "";
  }
  at("liked").hidden = !hit;
  at("liked-name").textContent = hit?.name ?? "";
}

function setPicture(url) {
  picture = url;
  at("picture").value = "";
  if (url) {
    setLike(null);
    at("preview").src = url;
  }
  at("given").hidden = !url;
  at("choose").hidden = Boolean(url);
  weigh();
}

function weigh() {
  at("share").hidden = !(picture && at("words").value.trim());
}

async function take(file) {
  if (!file?.type.startsWith("image/")) return;
  try {
    const small = file.size > LARGEST ? await smaller(file) : file;
    const url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(small);
    });
    setPicture(url);
    search();
  } catch (error) {
    tell("This picture cannot be read.", true);
  }
}

async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, 1600 / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, bitmap.width * scale), Math.max(1, bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

async function start() {
  at("ask").onsubmit = (event) => { event.preventDefault(); search(); };
  at("picture").onchange = () => take(at("picture").files[0]);
  at("remove").onclick = () => setPicture(null);
  at("unlike").onclick = () => setLike(null);
  at("words").oninput = weigh;
  at("weight").onchange = search;
  at("cutoff").onchange = () => { at("own").hidden = at("cutoff").value !== "own"; };
  document.onpaste = (event) => take(event.clipboardData.files[0]);
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); };
  try {
    const about = await (await call("about")).json();
    at("rows").textContent = about.rows.toLocaleString();
    at("model").textContent = about.model;
    if (about.belief) document.body.dataset.belief = "yes";
    at("cutoff").options[0].textContent = about.cutoff === null ? "none is calibrated"
      : about.cutoff_from === "model" ? "the model's default" : "as calibrated";
    at("count").max = about.limits.hits;
    at("examples").append(...about.examples.map((text) => button(shown(text), () => {
      setLike(null);
      setPicture(null);
      at("words").value = text;
      search();
    })));
  } catch (error) {
    tell(error.message, true);
  }
  const words = new URLSearchParams(location.search).get("q");
  if (words) {
    at("words").value = words;
    search();
  }
}

start();
