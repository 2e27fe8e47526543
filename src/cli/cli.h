/* cli: what the commands of `mysti` share: their entry points and what the program's exit codes mean. */
#ifndef MYSTI_CLI_CLI_H
#define MYSTI_CLI_CLI_H

enum cli_exit {
    CLI_OK = 0,
    CLI_REFUSED = 1,     /* the server said no, or the answer could not be used */
    CLI_USAGE = 2,       /* the command line is wrong */
    CLI_UNREACHABLE = 3, /* no server there */
    CLI_INTERRUPTED = 130,
};

/* argv[0] is the command's name; each returns an enum cli_exit. */
int cli_draw(int argc, char **argv);
int cli_upscale(int argc, char **argv);
int cli_write(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_models(int argc, char **argv);
int cli_load(int argc, char **argv);
int cli_unload(int argc, char **argv);
int cli_leave(int argc, char **argv);
int cli_inspect(int argc, char **argv);

#endif
