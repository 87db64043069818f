// What is known of an open stream, made of its events alone: a reload that hears them all again
// ends in the same state.

export const STAGES = ["planned", "decoded", "encoded", "prefilled"];

export const unwatched = (stream) => ({
  stream,
  counters: stream.counters,
  stages: new Array(stream.plan.num_frames).fill(0), // of each frame, an index of STAGES
  damaged: new Set(),
  answers: [], // in the order in which they were asked
  grounds: [],
  isClosed: false,
});

/** The state after one more event. */
export function heard(state, { name, data }) {
  switch (name) {
    case "planned":
      return unwatched(state.stream); // it is all heard from its beginning
    case "watching":
      return { ...state, stages: state.stages.map(() => 0) };
    case "decoded":
    case "encoded":
    case "prefilled":
      return moved(state, STAGES.indexOf(name), data);
    case "asked":
      return {
        ...state,
        answers: [...state.answers, { ...data, id: data.answer, text: "", status: "running" }],
      };
    case "words":
      return answered(state, data.answer, (answer) => ({ text: answer.text + data.text }));
    case "answered":
      return answered(state, data.id, () => data);
    case "failed":
      return answered(state, data.answer, () => ({ status: "failed", error: data.error }));
    case "paused":
      return answered(state, data.answer, () => ({ status: "paused" }));
    case "resumed":
      return answered(state, data.answer, () => ({ status: "running" }));
    case "grounding":
      return { ...state, grounds: [...state.grounds, { ...data, id: data.ground, boxes: null }] };
    case "grounded":
    case "ground_failed":
      return {
        ...state,
        grounds: state.grounds.map((each) => (each.id === data.ground ? { ...each, ...data } : each)),
      };
    case "closed":
      return { ...state, isClosed: true };
    default:
      return state;
  }
}

function moved(state, stage, { frames, damaged = [], counters }) {
  const stages = state.stages.slice();
  for (const index of frames) stages[index] = Math.max(stages[index], stage);
  return {
    ...state,
    stages,
    counters: counters || state.counters,
    damaged: damaged.length ? new Set([...state.damaged, ...damaged]) : state.damaged,
  };
}

function answered(state, id, change) {
  return {
    ...state,
    answers: state.answers.map((each) => (each.id === id ? { ...each, ...change(each) } : each)),
  };
}

export const isRunning = (answer) => answer.status === "running";
export const isPaused = (answer) => answer.status === "paused"; // nobody listened
