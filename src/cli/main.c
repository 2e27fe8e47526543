/* mysti: the command line of Mysti. Each command is a small HTTP client of mysti_server, but
 * for `inspect`, which asks the picture worker's program. */
#include "base/str.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"draw", cli_draw, "a picture of a prompt, into a PNG file"},
    {"upscale", cli_upscale, "a picture made larger"},
    {"write", cli_write, "an answer of the text model, as it comes"},
    {"status", cli_status, "the server, its workers, the memory"},
    {"models", cli_models, "what can be loaded, what is"},
    {"load", cli_load, "a model, text or picture"},
    {"unload", cli_unload, "the picture model or the text model"},
    {"leave", cli_leave, "yes or no to what waits for memory"},
    {"inspect", cli_inspect, "what a model file is, without loading it"},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void help(FILE *to)
{
    fprintf(to, "Usage: mysti COMMAND [options]\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(to,
            "\n'mysti COMMAND --help' tells more. The server is at "
            "http://127.0.0.1:1234, or where\n"
            "--server URL or the variable MYSTI_SERVER say. A server that wants a key "
            "gets the one in\n"
            "the variable MYSTI_API_KEY.\n"
            "Exit codes: 0 done, 1 the server said no, 2 wrong usage, 3 no server, 130 "
            "interrupted.\n");
}

static int unknown(const char *word)
{
    const char *names[COMMANDS];
    const char *near;

    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    near = str_nearest(word, names, COMMANDS);
    fprintf(stderr, "mysti: there is no command '%s'%s%s%s\n", word,
            near ? "; perhaps '" : "", near ? near : "", near ? "'" : "");
    fprintf(stderr, "Try 'mysti --help'.\n");
    return CLI_USAGE;
}

/* --server before the command means the same as behind it; the variable is where both look. */
static int take_server(int argc, char **argv)
{
    static const char flag[] = "--server=";

    if (argc > 2 && strcmp(argv[1], "--server") == 0) {
        setenv("MYSTI_SERVER", argv[2], 1);
        return 2;
    }
    if (argc > 1 && str_has_prefix(argv[1], flag)) {
        setenv("MYSTI_SERVER", argv[1] + strlen(flag), 1);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int taken = take_server(argc, argv);

    argc -= taken;
    argv += taken;
    if (argc < 2) {
        help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        help(stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mysti %s\n", MYSTI_VERSION);
        return CLI_OK;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
