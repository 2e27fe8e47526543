#include "cli/bar.h"

#include "base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { CELLS = 30 };

void bar_init(struct bar *b, enum bar_mode mode)
{
    *b = (struct bar){.is_on = mode == BAR_ALWAYS || (mode == BAR_AUTO && isatty(2))};
}

static void print_left(const struct bar *b, int step, int steps)
{
    double took = (double)(clock_ms() - b->began_ms) / 1000;

    if (step > b->first && step < steps)
        fprintf(stderr, ", %.1f s left", took / (step - b->first) * (steps - step));
}

void bar_set(struct bar *b, int step, int steps, const char *what)
{
    if (!b->is_on)
        return;
    fputs("\r\033[K", stderr);
    b->is_drawn = true;
    if (steps <= 0) {
        fprintf(stderr, "%s", what);
    } else {
        int full = step >= steps ? CELLS : CELLS * step / steps;

        if (step <= b->first || !b->began_ms) {
            b->began_ms = clock_ms();
            b->first = step;
        }
        fputc('[', stderr);
        for (int i = 0; i < CELLS; i++)
            fputc(i < full ? '#' : '-', stderr);
        fprintf(stderr, "] %d/%d %s", step, steps, what);
        print_left(b, step, steps);
    }
    fflush(stderr);
}

void bar_clear(struct bar *b)
{
    if (b->is_drawn)
        fputs("\r\033[K", stderr);
    b->is_drawn = false;
}
