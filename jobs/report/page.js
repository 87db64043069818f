"use strict";
// Rows are data: every string goes in as text, never as markup.

const videos = JSON.parse(document.getElementById("videos").textContent);
const PER_PAGE = 20;
const find = (id) => document.getElementById(id);
const [search, status, pageInput] = ["search", "status", "page"].map(find);
let matching = videos;
let page = 0;

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

const seconds = (value) => `${value.toFixed(1)} s`;
const span = (line) =>
  line.start_s === line.end_s ? seconds(line.start_s) : `${line.start_s.toFixed(1)}\u2013${seconds(line.end_s)}`;

function track(line, duration) {
  const isMoment = line.start_s === line.end_s;
  const mark = element("i", { class: isMoment ? "moment" : "stretch" });
  const length = Math.max(Math.min(line.end_s, duration) - line.start_s, 0);
  mark.style.left = `${(100 * line.start_s) / duration}%`;
  if (!isMoment) mark.style.width = `${(100 * length) / duration}%`;
  return element("span", { class: "track", "aria-hidden": "true" }, mark);
}

function lines(title, rows, video) {
  if (!rows.length) return null;
  const items = rows.map((line) =>
    element(
      "li",
      {},
      video.duration_s > 0 ? track(line, video.duration_s) : null,
      video.duration_s > 0 ? element("span", { class: "when" }, span(line)) : null,
      element(
        "span",
        { class: "words" },
        line.box_index === null ? null : element("b", { class: `number-${line.box_index % 6}` }, `${line.box_index + 1}`),
        line.head && element("bdi", { class: "head" }, line.head),
        line.text ? element("bdi", {}, line.text) : element("em", {}, "nothing"),
        line.note && element("span", { class: "chip" }, line.note),
      ),
    ),
  );
  return element("section", {}, element("h4", {}, title), element("ul", { class: "lines" }, ...items));
}

function frame(video, index) {
  const [time, source] = video.frames[index];
  const drawn = video.drawn.filter((box) => box.frame_index === index);
  const names = drawn.map((box) => video.boxes[box.box_index].head);
  const alt = `Frame at ${seconds(time)}` + (names.length ? ` with boxes: ${names.join(", ")}` : "");
  const picture = element("div", { class: "picture" }, element("img", { src: source, alt }));
  picture.style.aspectRatio = Math.min(Math.max(video.aspect, 0.4), 3);
  for (const box of drawn) {
    const label = element("b", {}, `${box.box_index + 1}`);
    const place = box.top < 15 ? "high " : "";
    const mark = element("i", { class: `box ${place}number-${box.box_index % 6}`, "aria-hidden": "true" }, label);
    for (const edge of ["left", "top", "width", "height"]) mark.style[edge] = `${box[edge]}%`;
    picture.append(mark);
  }
  return element("figure", {}, picture, element("figcaption", {}, video.duration_s > 0 ? seconds(time) : "image"));
}

function strip(video) {
  if (!video.frames.length) return video.frames_note && element("p", { class: "small" }, video.frames_note);
  const frames = video.frames.map((_, index) => frame(video, index));
  return element("div", { class: "strip", role: "group", "aria-label": "Frames", tabindex: "0" }, ...frames);
}

function details(title, pairs) {
  if (!pairs.length) return null;
  const rows = pairs.flatMap(([name, value]) => [element("dt", {}, element("bdi", {}, name)), element("dd", {}, element("bdi", {}, value))]);
  return element("details", {}, element("summary", {}, title), element("dl", {}, ...rows));
}

function card(video) {
  const badge = element("span", { class: video.code ? "badge failed" : "badge" }, video.code || "good");
  return element(
    "article",
    {},
    element("h3", {}, badge, element("bdi", {}, video.name), element("bdi", { class: "folder" }, video.folder)),
    element("p", { class: "facts" }, video.facts.join(" \u00b7 "), ...video.flags.map((flag) => element("span", { class: "chip" }, flag))),
    video.detail && element("p", { class: "detail" }, element("bdi", {}, video.detail)),
    strip(video),
    lines("Captions", video.captions, video),
    lines("Answers", video.answers, video),
    lines("Boxes", video.boxes, video),
    details("From the list", video.extra),
    details("How this row was made", video.made_by),
  );
}

const texts = videos.map((video) => {
  const results = [...video.captions, ...video.answers, ...video.boxes];
  const words = results.flatMap((line) => [line.head, line.text]);
  return [video.folder + video.name, video.code, video.detail, ...video.flags, ...video.extra.flat(), ...words].join("\n").toLowerCase();
});

const rules = {
  all: () => true,
  good: (video) => !video.code,
  failed: (video) => Boolean(video.code),
  flagged: (video) => video.flags.length > 0,
};

function filter() {
  const wanted = search.value.trim().toLowerCase();
  const accepts = rules[status.value] ?? ((video) => `code:${video.code}` === status.value);
  matching = videos.filter((video, index) => accepts(video) && texts[index].includes(wanted));
  show(0);
}

function show(index) {
  const last = Math.max(Math.ceil(matching.length / PER_PAGE) - 1, 0);
  page = Math.min(Math.max(index, 0), last);
  const first = page * PER_PAGE;
  const chosen = matching.slice(first, first + PER_PAGE);
  find("list").replaceChildren(...chosen.map(card));
  find("count").textContent = matching.length
    ? `${(first + 1).toLocaleString("en")} to ${(first + chosen.length).toLocaleString("en")} of ${matching.length.toLocaleString("en")}`
    : "No video matches.";
  find("last").textContent = (last + 1).toLocaleString("en");
  find("pages").hidden = last === 0;
  find("previous").disabled = page === 0;
  find("next").disabled = page === last;
  pageInput.value = page + 1;
  pageInput.max = last + 1;
}

function turn(index) {
  show(index);
  find("list").focus({ preventScroll: true });
  find("filter").scrollIntoView();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

find("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
find("filter").addEventListener("submit", (event) => event.preventDefault());
search.addEventListener("input", filter);
status.addEventListener("change", filter);
find("previous").addEventListener("click", () => turn(page - 1));
find("next").addEventListener("click", () => turn(page + 1));
pageInput.addEventListener("change", () => turn((Number(pageInput.value) || 1) - 1));
for (const button of document.querySelectorAll("[data-code]")) {
  button.addEventListener("click", () => {
    status.value = `code:${button.dataset.code}`;
    filter();
    find("list").focus();
  });
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
find("theme").hidden = find("filter").hidden = false;
filter();
