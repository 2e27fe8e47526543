/* Keys are kept as they are, not hashed: the file is for the server's user alone (anything else is refused, as ssh does), and
 * whoever can read it can read the models and the pictures, too. They are compared without a shortcut, every one of
 * them, so that the time of an answer says neither how much of a key was right nor which one.
 *
 * Rejected: keys in the configuration file or in options (the one is shown by --print-config, the other to every user
 * of the machine), and a user database (names and passwords belong to a proxy in front, for those who need them). */
#include "server/keys/keys.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FILE_MAX_BYTES ((size_t)1024 * 1024)
#define SECRET_MIN 16
#define SECRET_MAX 256
#define NAME_MAX_BYTES 64
#define BLANKS " \t\r"

static const char *const words[] = {
#define X(name, word) word,
    KEY_SCOPES(X)
#undef X
};

const char *key_scope_word(enum key_scope scope)
{
    return words[scope];
}

int key_scope_parse(const char *word, enum key_scope *ret, struct err *err)
{
    for (int i = SCOPE_INFER; i <= SCOPE_ADMIN; i++)
        if (!strcmp(word, words[i])) {
            *ret = (enum key_scope)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "there is no scope '%.40s': they are infer and admin", word);
}

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789-_.");

    return n > 0 && n <= NAME_MAX_BYTES && !s[n];
}

/* Without blanks and control characters, so that it fits into a header. */
static bool is_secret(const char *s)
{
    size_t n = strlen(s);

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= 0x20 || (unsigned char)s[i] >= 0x7f)
            return false;
    return n >= SECRET_MIN && n <= SECRET_MAX;
}

void keys_release(struct keys *k)
{
    for (size_t i = 0; i < k->count; i++) {
        free(k->items[i].name);
        if (k->items[i].secret)
            explicit_bzero(k->items[i].secret, strlen(k->items[i].secret));
        free(k->items[i].secret);
    }
    free(k->items);
    *k = (struct keys){0};
}

static const struct key *named(const struct keys *k, const char *name)
{
    for (size_t i = 0; i < k->count; i++)
        if (!strcmp(k->items[i].name, name))
            return &k->items[i];
    return NULL;
}

static int parse_line(char *line, const char *where, struct keys *k, struct err *err)
{
    char *rest = line, *name, *scope, *secret;
    struct key key;

    rest += strspn(rest, BLANKS);
    if (!*rest || *rest == '#')
        return 0;
    name = strtok_r(rest, BLANKS, &rest);
    scope = strtok_r(NULL, BLANKS, &rest);
    secret = strtok_r(NULL, BLANKS, &rest);
    if (!secret || strtok_r(NULL, BLANKS, &rest))
        return err_set(err, ERR_INVALID,
                       "%s: a line is NAME SCOPE KEY, three words; # begins a comment",
                       where);
    if (!is_name(name))
        return err_set(
            err, ERR_INVALID,
            "%s: the name '%.80s' must be made of at most %d letters, digits, "
            "'-', '_' and '.'",
            where, name, NAME_MAX_BYTES);
    if (key_scope_parse(scope, &key.scope, err))
        return err_wrap(err, "%s", where);
    if (!is_secret(secret))
        return err_set(err, ERR_INVALID,
                       "%s: the key of '%s' must have %d to %d printable ASCII "
                       "characters",
                       where, name, SECRET_MIN, SECRET_MAX);
    if (named(k, name))
        return err_set(err, ERR_INVALID, "%s: the name '%s' stands there twice", where,
                       name);
    if (k->count == KEYS_MAX)
        return err_set(err, ERR_INVALID, "%s: more than %d keys", where, KEYS_MAX);
    key.name = mem_strdup(name);
    key.secret = mem_strdup(secret);
    k->items = mem_realloc(k->items, (k->count + 1) * sizeof(*k->items));
    k->items[k->count++] = key;
    return 0;
}

int keys_parse(const char *text, size_t len, const char *path, struct keys *ret,
               struct err *err)
{
    struct keys k = {0};
    char *copy = mem_strndup(text, len), *rest = copy;
    int number = 0, rc = 0;

    if (strlen(copy) != len)
        rc = err_set(err, ERR_INVALID, "%s is no text", path);
    for (char *line; rc == 0 && (line = strsep(&rest, "\n"));) {
        char *where = mem_printf("%s, line %d", path, ++number);

        rc = parse_line(line, where, &k, err);
        free(where);
    }
    explicit_bzero(copy, strlen(copy));
    free(copy);
    if (rc)
        keys_release(&k);
    *ret = k;
    return rc;
}

int keys_read(const char *path, struct keys *ret, struct err *err)
{
    struct buf text = {0};
    struct stat st;
    int rc;

    *ret = (struct keys){0};
    if (stat(path, &st))
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_STORAGE,
                       "no file of keys %s: %s", path, strerror(errno));
    if (st.st_mode & 077)
        return err_set(
            err, ERR_FORBIDDEN,
            "other users of this machine may read the keys in %s: chmod 600 %s", path,
            path);
    if (file_read(path, FILE_MAX_BYTES, &text, err))
        return -1;
    rc = keys_parse(buf_str(&text), text.len, path, ret, err);
    explicit_bzero(text.data, text.len);
    buf_release(&text);
    return rc;
}

/* Of equal length or not, every byte of both is looked at. */
static bool is_same(const char *secret, const char *presented, size_t presented_len)
{
    size_t len = strlen(secret);
    unsigned difference = len != presented_len;

    for (size_t i = 0; i < presented_len; i++)
        difference |=
            (unsigned char)presented[i] ^ (unsigned char)secret[len ? i % len : 0];
    return difference == 0;
}

const struct key *keys_find(const struct keys *k, const char *presented)
{
    size_t len = strlen(presented);
    const struct key *found = NULL;

    for (size_t i = 0; i < k->count; i++)
        if (is_same(k->items[i].secret, presented, len))
            found = &k->items[i];
    return found;
}

static void make_secret(char ret[KEY_SECRET_SIZE])
{
    unsigned char bytes[(KEY_SECRET_SIZE - 1) / 2];

    for (size_t got = 0; got < sizeof(bytes);) {
        ssize_t n = getrandom(bytes + got, sizeof(bytes) - got, 0);

        if (n > 0)
            got += (size_t)n;
        else if (errno != EINTR)
            abort(); /* a kernel without random numbers: no secret can be made */
    }
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

int keys_add(const char *path, const char *name, enum key_scope scope,
             char ret_secret[KEY_SECRET_SIZE], struct err *err)
{
    struct keys k;
    struct err why = {0};
    struct buf text = {0};
    int rc = -1;

    if (!is_name(name))
        return err_set(
            err, ERR_INVALID,
            "the name '%.80s' must be made of at most %d letters, digits, '-', "
            "'_' and '.'",
            name, NAME_MAX_BYTES);
    if (keys_read(path, &k, &why) && why.code != ERR_NOT_FOUND)
        return err_set(err, why.code, "%s", why.message);
    if (named(&k, name)) {
        err_set(err, ERR_CONFLICT, "%s has a key '%s' already: remove its line first",
                path, name);
        goto out;
    }
    if (k.count && file_read(path, FILE_MAX_BYTES, &text, err))
        goto out;
    if (text.len == 0)
        buf_append_str(&text, "# name scope key\n");
    if (text.data[text.len - 1] != '\n')
        buf_append_str(&text, "\n");
    make_secret(ret_secret);
    buf_printf(&text, "%s %s %s\n", name, words[scope], ret_secret);
    rc = file_write_atomic(path, buf_str(&text), text.len, 0600, err);
out:
    keys_release(&k);
    if (text.data)
        explicit_bzero(text.data, text.len);
    buf_release(&text);
    return rc;
}
