/* A VAE is the same as the one before when its files are, by device, inode, time and size. Its own weights wait for
 * model_pack(), as all do, so that an estimate costs no packing. */
#include "engine/vaes.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/named_files.h"

#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

enum { FILES_MAX = 3 }; /* what was named, and the files that were read for it */

struct other_vae {
    struct stat stats[FILES_MAX]; /* when it was opened */
    int files;
    struct weights_file *file;
};

void other_vae_close(struct other_vae *vae)
{
    if (!vae)
        return;
    weights_file_close(vae->file);
    free(vae);
}

const char *vae_name(const struct engine_model *model)
{
    return model->other_vae ? file_name(weights_file_path(model->other_vae->file))
                            : NULL;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* index 0: what was named */
static const char *path_of(const struct other_vae *vae, int index, const char *named)
{
    return index ? weights_file_part_path(vae->file, (size_t)index - 1) : named;
}

static bool is_same(const struct other_vae *vae, const char *named)
{
    struct stat now;

    for (int i = 0; vae && i < vae->files; i++)
        if (stat(path_of(vae, i, named), &now) || !is_same_file(&now, &vae->stats[i]))
            return false;
    return vae != NULL;
}

static int open_vae(struct other_vae *vae, const char *named, struct err *err)
{
    const char *path;

    if (weights_vae_open(&vae->file, named, err))
        return -1;
    for (; vae->files < FILES_MAX && (path = path_of(vae, vae->files, named));
         vae->files++)
        if (stat(path, &vae->stats[vae->files]))
            return err_set(err, ERR_NOT_FOUND, "%s is gone", path);
    return 0;
}

/* The checkpoint uses `vae` already, or its own again where that is NULL. */
static void change(struct engine_model *model, struct other_vae *vae)
{
    model_forget_stages(model);
    model->vae_store = model->engine->backend->ops->store_new(model->engine->backend,
                                                              STORE_AS_COMPUTED);
    model->preview.is_known = false;
    model->other_vae = vae;
}

static void set_aside(struct engine_model *model, struct borrowed_vae *ret)
{
    *ret = (struct borrowed_vae){.before = model->other_vae,
                                 .store = model->vae_store,
                                 .vae = model->checkpoint->vae};
}

static int take(struct engine_model *model, const char *path, const char *name,
                struct err *err)
{
    struct other_vae *vae;

    if (is_same(model->other_vae, path))
        return 0;
    vae = mem_zalloc(sizeof(*vae));
    if (open_vae(vae, path, err) ||
        checkpoint_use_vae(model->checkpoint, vae->file, err)) {
        other_vae_close(vae);
        if (err)
            snprintf(err->param, sizeof(err->param), "vae");
        return err_wrap(err, "the VAE '%.100s'", name);
    }
    change(model, vae);
    return 0;
}

/* "taesd" is taesd_decoder.pth, and what lies beside it, because other programs list the pair so. */
int vae_find(const struct engine *engine, const char *name, char **ret_path,
             struct err *err)
{
    const struct named_search search = {engine->vae_folders, "VAE", "vae"};
    char *decoder;
    int result = named_file_find(&search, name, ret_path, err);

    if (!result)
        return 0;
    decoder = mem_printf("%s_decoder", name);
    result = named_file_find(&search, decoder, ret_path, NULL);
    free(decoder);
    return result;
}

static int take_own(struct engine_model *model, struct err *err)
{
    if (!model->checkpoint->own_vae.file)
        return err_set_param(err, ERR_INVALID, "vae",
                             "%s has no VAE of its own, and no other one is named: put "
                             "one into the VAE folder and name it in the request "
                             "(\"vae\"), or with --vae for all pictures",
                             model->checkpoint->name);
    if (!model->other_vae)
        return 0;
    if (checkpoint_use_vae(model->checkpoint, NULL, err))
        return -1;
    change(model, NULL);
    return 0;
}

static int take_named(struct engine_model *model, const char *name, struct err *err)
{
    char *path;
    int result;

    if (!name || strcasecmp(name, "automatic") == 0)
        name = model->engine->vae;
    if (!name || strcasecmp(name, "none") == 0)
        return take_own(model, err);
    if (vae_find(model->engine, name, &path, err))
        return -1;
    result = take(model, path, name, err);
    free(path);
    return result;
}

int model_take_vae(struct engine_model *model, const char *name, struct err *err)
{
    struct borrowed_vae before;
    int result;

    set_aside(model, &before);
    result = take_named(model, name, err);
    if (model->vae_store != before.store) {
        model->engine->backend->ops->store_free(before.store);
        other_vae_close(before.before);
    }
    return result;
}

int model_borrow_vae(struct engine_model *model, const char *name,
                     struct borrowed_vae *ret, struct err *err)
{
    int result;

    set_aside(model, ret);
    result = take_named(model, name, err);
    ret->is_other = model->vae_store != ret->store;
    return result;
}

void model_return_vae(struct engine_model *model, struct borrowed_vae *borrowed)
{
    if (!borrowed->is_other)
        return;
    model_forget_stages(model);
    model->engine->backend->ops->store_free(model->vae_store);
    other_vae_close(model->other_vae);
    model->checkpoint->vae = borrowed->vae;
    model->vae_store = borrowed->store;
    model->other_vae = borrowed->before;
    model->preview.is_known = false;
}
