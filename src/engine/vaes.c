/* A VAE is the same as the one before when its file is, by device, inode, time and size. Its own weights wait for
 * model_pack(), as all do, so that an estimate costs no packing. */
#include "engine/vaes.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/named_files.h"

#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

struct other_vae {
    struct stat stat; /* when it was opened */
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

static bool is_same(const struct other_vae *vae, const struct stat *stat)
{
    return vae && vae->stat.st_dev == stat->st_dev &&
           vae->stat.st_ino == stat->st_ino && vae->stat.st_size == stat->st_size &&
           vae->stat.st_mtim.tv_sec == stat->st_mtim.tv_sec &&
           vae->stat.st_mtim.tv_nsec == stat->st_mtim.tv_nsec;
}

/* The checkpoint uses `vae` already, or its own again where that is NULL. */
static void change(struct engine_model *model, struct other_vae *vae)
{
    const struct backend_ops *ops = model->engine->backend->ops;

    model_forget_stages(model);
    ops->store_free(model->vae_store);
    model->vae_store = ops->store_new(model->engine->backend);
    model->preview.is_known = false;
    other_vae_close(model->other_vae);
    model->other_vae = vae;
}

static int take(struct engine_model *model, const char *path, const char *name,
                struct err *err)
{
    struct other_vae *vae;
    struct stat now = {0};

    if (stat(path, &now) == 0 && is_same(model->other_vae, &now))
        return 0;
    vae = mem_zalloc(sizeof(*vae));
    vae->stat = now;
    if (weights_vae_open(&vae->file, path, err) ||
        checkpoint_use_vae(model->checkpoint, vae->file, err)) {
        other_vae_close(vae);
        if (err)
            snprintf(err->param, sizeof(err->param), "vae");
        return err_wrap(err, "the VAE '%.100s'", name);
    }
    change(model, vae);
    return 0;
}

int model_take_vae(struct engine_model *model, const char *name, struct err *err)
{
    const struct named_search search = {model->engine->vae_folders, "VAE", "vae"};
    char *path;
    int result;

    if (!name || strcasecmp(name, "automatic") == 0 || strcasecmp(name, "none") == 0) {
        if (!model->other_vae)
            return 0;
        result = checkpoint_use_vae(model->checkpoint, NULL, err);
        if (!result)
            change(model, NULL);
        return result;
    }
    if (named_file_find(&search, name, &path, err))
        return -1;
    result = take(model, path, name, err);
    free(path);
    return result;
}
