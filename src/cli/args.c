#include "cli/args.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 80, FIRST_CODE = 256, HELP_COLUMN = 22, HELP_WIDTH = 100 };

static int count_options(const struct args_command *c)
{
    int n = 0;

    while (c->options[n].name)
        n++;
    assert(n <= MAX_OPTIONS);
    return n;
}

/* The rest of a line, and as many as it takes, between the two columns. */
static void print_wrapped(const char *text)
{
    size_t room = HELP_WIDTH - HELP_COLUMN - 8;

    while (strlen(text) > room) {
        size_t end = room;

        while (end > 0 && text[end] != ' ')
            end--;
        if (end == 0)
            break; /* one long word */
        printf("%.*s\n%*s", (int)end, text, HELP_COLUMN + 8, "");
        text += end + 1;
    }
    printf("%s\n", text);
}

static void print_help(const struct args_command *c)
{
    printf("Usage: mysti %s [options]%s%s\n\n%s\n", c->name, c->operand_name ? " " : "",
           c->operand_name ? c->operand_name : "", c->summary);
    if (c->details)
        printf("\n%s", c->details);
    printf("\n");
    for (const struct args_option *o = c->options; o->name; o++) {
        char letter[8] = "    ";
        char left[48];

        if (o->heading)
            printf("\n%s:\n", o->heading);
        if (o->letter)
            snprintf(letter, sizeof(letter), "-%c, ", o->letter);
        snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-*s  ", HELP_COLUMN + 4, left);
        print_wrapped(o->help);
    }
    printf("  %-*s  %s\n", HELP_COLUMN + 4, "-h, --help", "this text");
}

static int mistake(const struct args_command *c, const struct err *err)
{
    fprintf(stderr, "mysti %s: %s\nTry 'mysti %s --help'.\n", c->name, err->message,
            c->name);
    return CLI_USAGE;
}

static void explain_unknown(const struct args_command *c, const char *word,
                            struct err *err)
{
    const char *names[MAX_OPTIONS];
    const int n = count_options(c);
    const char *near;

    for (int i = 0; i < n; i++)
        names[i] = c->options[i].name;
    near = str_nearest(word + strspn(word, "-"), names, (size_t)n);
    err_set(err, ERR_INVALID, "unknown option '%s'%s%s", word,
            near ? "; perhaps --" : "", near ? near : "");
}

static int take_number(const struct args_option *o, const char *text, double *ret,
                       struct err *err)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !isfinite(value) || value < (double)o->min ||
        value > (double)o->max)
        return err_set(err, ERR_INVALID,
                       "--%s must be a number between %lld and %lld, not '%s'", o->name,
                       (long long)o->min, (long long)o->max, text);
    *ret = value;
    return 0;
}

static int take(const struct args_option *o, const char *text, void *into,
                struct err *err)
{
    void *target = (char *)into + o->at;
    char *what;
    int rc = 0;

    switch (o->kind) {
    case ARGS_FLAG:
        *(bool *)target = true;
        break;
    case ARGS_STRING:
        *(const char **)target = text;
        break;
    case ARGS_INT:
        what = mem_printf("--%s", o->name);
        rc = str_to_int(text, what, o->min, o->max, target, err);
        free(what);
        break;
    case ARGS_NUMBER:
        rc = take_number(o, text, target, err);
        break;
    }
    return rc;
}

/* One string for each word, or all of them in one. */
static void keep_operands(const struct args_command *c, char **words, int n, void *into)
{
    char **target = (char **)((char *)into + c->operand_at);
    struct buf joined = {0};

    if (c->operand == ARGS_TWO) {
        target[0] = mem_strdup(words[0]);
        target[1] = mem_strdup(words[1]);
        return;
    }
    for (int i = 0; i < n; i++)
        buf_printf(&joined, "%s%s", i ? " " : "", words[i]);
    *target = buf_take(&joined);
}

static int take_operands(const struct args_command *c, char **words, int n, void *into,
                         struct err *err)
{
    static const int most[] = {
        [ARGS_NONE] = 0, [ARGS_ONE] = 1, [ARGS_TWO] = 2, [ARGS_WORDS] = INT_MAX};

    if ((n == 0 && c->operand != ARGS_NONE) || (n == 1 && c->operand == ARGS_TWO))
        return err_set(err, ERR_INVALID, "%s is missing", c->operand_name);
    if (n > most[c->operand])
        return err_set(err, ERR_INVALID, "'%s' is one word too many",
                       words[most[c->operand]]);
    if (c->operand != ARGS_NONE)
        keep_operands(c, words, n, into);
    return 0;
}

/* What getopt gave: the option's index, or -1 with a sentence in err. */
static int option_index(const struct args_command *c, int code, char **argv,
                        struct err *err)
{
    const bool is_missing = code == ':'; /* a value; which option, is in optopt */
    const int id = is_missing ? optopt : code;
    int found = id >= FIRST_CODE ? id - FIRST_CODE : -1;

    for (int i = 0; id < FIRST_CODE && c->options[i].name; i++)
        if (c->options[i].letter && c->options[i].letter == id)
            found = i;
    if (found >= 0 && is_missing) {
        err_set(err, ERR_INVALID, "--%s needs a value: %s", c->options[found].name,
                c->options[found].value);
        return -1;
    }
    if (found < 0)
        explain_unknown(c, argv[optind - 1], err);
    return found;
}

/* for getopt_long: longs[n + 2], letters ":h" and more */
static void describe(const struct args_command *c, struct option *longs, char *letters)
{
    *longs++ = (struct option){"help", no_argument, NULL, 'h'};
    letters += 2;
    for (int i = 0; c->options[i].name; i++) {
        const struct args_option *o = &c->options[i];
        int argument = o->kind == ARGS_FLAG ? no_argument : required_argument;

        *longs++ = (struct option){o->name, argument, NULL, FIRST_CODE + i};
        if (o->letter)
            *letters++ = o->letter;
        if (o->letter && argument == required_argument)
            *letters++ = ':';
    }
}

int args_parse(const struct args_command *c, int argc, char **argv, void *into,
               int *ret_exit)
{
    struct option longs[MAX_OPTIONS + 2] = {0};
    char letters[2 * MAX_OPTIONS + 4] = ":h";
    struct err err = {0};

    describe(c, longs, letters);
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        int i;

        if (code == 'h') {
            print_help(c);
            *ret_exit = CLI_OK;
            return -1;
        }
        i = option_index(c, code, argv, &err);
        if (i < 0 || take(&c->options[i], optarg, into, &err))
            goto mistaken;
    }
    if (take_operands(c, argv + optind, argc - optind, into, &err))
        goto mistaken;
    return 0;

mistaken:
    *ret_exit = mistake(c, &err);
    return -1;
}
