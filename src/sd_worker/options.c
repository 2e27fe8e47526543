#include "sd_worker/options.h"

#include "base/str.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "Usage: mysti_sd_worker [options]\n"
    "\n"
    "Paints pictures for mysti_server, which starts it. It listens on 127.0.0.1 and "
    "answers\n"
    "only those who know the secret in MYSTI_WORKER_TOKEN.\n"
    "\n"
    "  --listen-port N       the port; 0, the default: any free one, printed once it "
    "listens\n"
    "  --model FILE          load this model at once\n"
    "  --inspect FILE        say what this file is, as JSON, and end\n"
    "  --threads N           compute threads; 0, the default: one per physical core\n"
    "  --backend NAME        one of: %s\n"
    "  --weights auto|int8   int8: models take half of the memory, and draw slightly "
    "other\n"
    "                        pictures\n"
    "  --lora-dir FOLDER     where the LoRAs of prompts are; up to 4 times, the first\n"
    "                        goes first\n"
    "  --upscaler-dir FOLDER where upscalers are\n"
    "  --embedding-dir FOLDER\n"
    "                        where the textual inversions of prompts are\n"
    "  --vae-dir FOLDER      where the VAEs that jobs name are\n"
    "  --preview-method NAME latent2rgb (default) or taesd: by the taesd or taesdxl "
    "in\n"
    "                        the VAE folder, where it is there\n"
    "  --vae NAME            which of them those jobs have that name none\n"
    "  --sharing POLICY      who goes first on the processor and the graphics card:\n"
    "                        text-first (default), equal or image-first\n"
    "  --verbose             log every step\n"
    "  --version, --help\n";

static const char *const long_names[] = {
    "listen-port",   "model",   "inspect",  "threads",
    "backend",       "weights", "lora-dir", "upscaler-dir",
    "embedding-dir", "vae-dir", "vae",      "preview-method",
    "sharing",       "verbose", "version",  "help"};

static int mistake(const struct err *err)
{
    fprintf(stderr, "mysti_sd_worker: %s\n", err->message);
    return 2;
}

static int unknown(const char *word)
{
    struct err err = {0};
    const char *name = word + strspn(word, "-");
    const char *near =
        str_nearest(name, long_names, sizeof(long_names) / sizeof(*long_names));

    err_set(&err, ERR_INVALID, "unknown option or missing value: '%s'%s%s; see --help",
            word, near ? ", perhaps --" : "", near ? near : "");
    return mistake(&err);
}

static int number(const char *text, const char *what, int max, int *ret,
                  struct err *err)
{
    int64_t value;

    if (str_to_int(text, what, 0, max, &value, err))
        return -1;
    *ret = (int)value;
    return 0;
}

static int add_folder(struct options *o, const char *folder, struct err *err)
{
    int count = 0;

    while (count < ENGINE_LORA_FOLDERS && o->lora_folders[count])
        count++;
    if (count == ENGINE_LORA_FOLDERS)
        return err_set(err, ERR_INVALID, "--lora-dir: more than %d folders",
                       ENGINE_LORA_FOLDERS);
    o->lora_folders[count] = folder;
    return 0;
}

int options_parse(struct options *ret, int argc, char **argv)
{
    static const struct option longs[] = {
        {"listen-port", required_argument, NULL, 'p'},
        {"model", required_argument, NULL, 'm'},
        {"inspect", required_argument, NULL, 'i'},
        {"threads", required_argument, NULL, 't'},
        {"backend", required_argument, NULL, 'b'},
        {"weights", required_argument, NULL, 'w'},
        {"lora-dir", required_argument, NULL, 'l'},
        {"upscaler-dir", required_argument, NULL, 'u'},
        {"embedding-dir", required_argument, NULL, 'e'},
        {"vae-dir", required_argument, NULL, 'a'},
        {"vae", required_argument, NULL, 'A'},
        {"preview-method", required_argument, NULL, 'P'},
        {"sharing", required_argument, NULL, 's'},
        {"verbose", no_argument, NULL, 'v'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {0}};
    struct err err = {0};
    int rc = 0;

    *ret = (struct options){.sharing = SHARING_TEXT_FIRST};
    opterr = 0;
    for (int c; rc == 0 && (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'p':
            rc = number(optarg, "--listen-port", 65535, &ret->listen_port, &err);
            break;
        case 'm':
            ret->model = optarg;
            break;
        case 'i':
            ret->inspect = optarg;
            break;
        case 't':
            rc = number(optarg, "--threads", 1024, &ret->threads, &err);
            break;
        case 'b':
            ret->backend = optarg;
            break;
        case 'w':
            ret->weights = optarg;
            break;
        case 'u':
            ret->upscaler_folder = optarg;
            break;
        case 'l':
            rc = add_folder(ret, optarg, &err);
            break;
        case 'e':
            ret->embedding_folder = optarg;
            break;
        case 'a':
            ret->vae_folder = optarg;
            break;
        case 'P':
            ret->preview_method = optarg;
            break;
        case 'A':
            ret->vae = optarg;
            break;
        case 's':
            rc = sharing_parse(optarg, "--sharing", &ret->sharing, &err);
            break;
        case 'v':
            ret->verbose = true;
            break;
        case 'V':
            printf("mysti_sd_worker %s (%s)\n", MYSTI_VERSION, engine_backend_names());
            return 0;
        case 'h':
            printf(usage, engine_backend_names());
            return 0;
        default:
            return unknown(argv[optind - 1]);
        }
    }
    if (rc)
        return mistake(&err);
    if (optind < argc)
        return unknown(argv[optind]);
    return -1;
}
