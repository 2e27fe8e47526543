/* keys: who may ask what. A file with one key on a line:
 *
 *   # name     scope   key
 *   laptop     admin   9f3c...
 *   classroom  infer   77ab...
 *
 *   if (keys_read(path, &keys, &err)) ...
 *   const struct key *key = keys_find(&keys, presented);     NULL: unknown
 *   if (key->scope >= SCOPE_ADMIN) ...
 *
 * A key is a secret: it stands in this file and in the requests, never in arguments, logs or answers; what the log and
 * other clients see is its name. Plain data; the loop thread owns the server's. */
#ifndef MYSTI_SERVER_KEYS_KEYS_H
#define MYSTI_SERVER_KEYS_KEYS_H

#include "base/err.h"

#include <stddef.h>

/* What a route needs, and what a key may; each includes the ones before it. */
#define KEY_SCOPES(X)                                                                  \
    X(PUBLIC, "public") /* no key */                                                   \
    X(INFER, "infer")   /* ask for text and pictures, see models and results */        \
    X(ADMIN, "admin")   /* change what is loaded, stop workers, see the machine */

enum key_scope {
#define X(name, word) SCOPE_##name,
    KEY_SCOPES(X)
#undef X
};

const char *key_scope_word(enum key_scope scope);
/* "infer" or "admin" */
int key_scope_parse(const char *word, enum key_scope *ret, struct err *err) MUST_CHECK;

struct key {
    char *name; /* letters, digits, '-', '_', '.' */
    enum key_scope scope;
    char *secret;
};

struct keys {
    struct key *items;
    size_t count;
};

#define KEYS_MAX 1024

/* ERR_NOT_FOUND when there is no such file; refuses one that other users may read. *ret is empty after an error. */
int keys_read(const char *path, struct keys *ret, struct err *err) MUST_CHECK;
/* The text of such a file, `path` for the sentences. */
int keys_parse(const char *text, size_t len, const char *path, struct keys *ret,
               struct err *err) MUST_CHECK;
void keys_release(struct keys *k);
/* Takes as long for a wrong key as for a right one. */
const struct key *keys_find(const struct keys *k, const char *presented);

#define KEY_SECRET_SIZE 65
/* Makes a key and adds it to the file, which is made if need be. ERR_CONFLICT when the name is taken. */
int keys_add(const char *path, const char *name, enum key_scope scope,
             char ret_secret[KEY_SECRET_SIZE], struct err *err) MUST_CHECK;

#endif
