import { startKeys } from "./keys.js";
import { startLive } from "./live.js";
import { startTheme } from "./theme-button.js";
import { startTimes } from "./times.js";
import { openTarget, startViewers } from "./viewer.js";

startTheme();
startKeys();
startTimes();
startViewers();
startLive();
openTarget();
addEventListener("hashchange", openTarget);
