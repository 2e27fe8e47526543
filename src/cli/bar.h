/* bar: one line on the terminal that says how far a job is, redrawn in place.
 *
 *   struct bar bar;
 *   bar_init(&bar, BAR_AUTO);
 *   bar_set(&bar, 9, 20, "drawing");      or bar_set(&bar, 0, 0, "waiting, 2 before you")
 *   bar_clear(&bar);                       before any other output
 */
#ifndef MYSTI_CLI_BAR_H
#define MYSTI_CLI_BAR_H

#include <stdbool.h>
#include <stdint.h>

enum bar_mode { BAR_AUTO, BAR_ALWAYS, BAR_NEVER }; /* auto: when stderr is a terminal */

struct bar {
    bool is_on;
    bool is_drawn;
    uint64_t began_ms; /* of the steps: for the estimate */
    int first;         /* the step at which began_ms was taken */
};

void bar_init(struct bar *b, enum bar_mode mode);
void bar_set(struct bar *b, int step, int steps, const char *what);
void bar_clear(struct bar *b);

#endif
