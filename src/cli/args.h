/* args: one table of options per command gives the parser, the help and the sentences about mistakes.
 *
 *   static const struct args_option options[] = {
 *       {.name = "steps", .kind = ARGS_INT, .at = offsetof(struct draw, steps), .value = "N", .min = 1, .max = 150,
 *        .help = "denoising steps"}, {0}};
 *   static const struct args_command command = {.name = "draw", .options = options, ...};
 *   if (args_parse(&command, argc, argv, &draw, &rc)) return rc;
 */
#ifndef MYSTI_CLI_ARGS_H
#define MYSTI_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum args_kind {
    ARGS_FLAG,   /* bool */
    ARGS_STRING, /* const char *, of argv */
    ARGS_INT,    /* int64_t within min..max */
    ARGS_NUMBER, /* double within min..max */
};

struct args_option {
    const char *name;
    char letter; /* 0: none */
    enum args_kind kind;
    size_t at;         /* offsetof the variable in the command's own struct */
    const char *value; /* how the help calls it; NULL for a flag */
    int64_t min;
    int64_t max;
    const char *help;
    const char *heading; /* stands above it in the help; NULL: none */
};

enum args_operand { ARGS_NONE, ARGS_ONE, ARGS_TWO, ARGS_WORDS };

struct args_command {
    const char *name;
    const char *summary; /* one line */
    const char *details; /* further lines of help, each ended by \n; may be NULL */
    const struct args_option *options; /* ended by an empty one */
    enum args_operand operand;
    const char *operand_name; /* "PROMPT" */
    size_t operand_at;        /* offsetof a char *: all words joined by blanks; free it.
                          ARGS_TWO: of two, one for each */
};

/* Values go into *into. 0: go on; -1: exit with *ret_exit (help was printed, or a sentence about the mistake). */
int args_parse(const struct args_command *command, int argc, char **argv, void *into,
               int *ret_exit);

#endif
