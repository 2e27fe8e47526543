/* inspect: mysti_sd_worker --inspect FILE. */
#ifndef MYSTI_SD_WORKER_INSPECT_H
#define MYSTI_SD_WORKER_INSPECT_H

/* Prints one JSON object on standard output: what the file is (docs/files.md), or an
 * "error" as the server words its own. Returns the program's exit code, 0 or 1. */
int inspect(const char *path);

#endif
