// Messages in place of an empty chart: what fills it, or why a finished job will not.
export const afterEnd = (text) => (page) => page.endText || text;
export const afterFirstSample = afterEnd("Points appear as soon as a device trains.");
export const afterFirstRound = afterEnd("Shown once a device has reported a round.");
