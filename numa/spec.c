/* SPDX-License-Identifier: MIT */
#include "numa/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "numa/machine.h"
#include "runtime/base/error.h"

enum { WORD_BYTES = 64 };

bool nio_spec_is_path(const char *spec)
{
    size_t length = strlen(spec);
    return strchr(spec, '/') || (length >= 4 && strcmp(spec + length - 4, ".xml") == 0);
}

static int check_type(const char *name)
{
    hwloc_obj_type_t type;
    union hwloc_obj_attr_u attr;
    if (hwloc_type_sscanf(name, &type, &attr, sizeof attr) == 0)
        return 0;
    return nio_error(-EINVAL,
                     "topology: '%s' is no kind of object; try pack, numa, l3, core, pu as in "
                     "\"pack:2 numa:1 core:4 pu:1\"",
                     name);
}

/* "core:4" or "4"; behind it may stand attributes in parentheses.  Multiplies *total. */
static int check_word(const char *word, unsigned long *total)
{
    char name[WORD_BYTES], *end;
    const char *colon = strchr(word, ':');
    const char *count = colon ? colon + 1 : word;
    if (colon) {
        size_t length = (size_t)(colon - word);
        memcpy(name, word, length); /* a word is shorter than WORD_BYTES */
        name[length] = '\0';
        int err = check_type(name);
        if (err)
            return err;
    }
    unsigned long value = *count >= '0' && *count <= '9' ? strtoul(count, &end, 10) : 0;
    if (value == 0 || (*end != '\0' && *end != '('))
        return nio_error(-EINVAL, "topology: '%s' has no count; write it as in \"core:4\"", word);
    if (value > NIO_PUS_MAX || *total * value > NIO_PUS_MAX)
        return nio_error(-E2BIG, "topology: more than %d PUs up to '%s'", NIO_PUS_MAX, word);
    *total *= value;
    return 0;
}

/* The length of the word at `text`; blanks inside () and [] belong to it. */
static size_t word_length(const char *text)
{
    size_t length = 0;
    int depth = 0;
    for (; text[length]; length++) {
        char c = text[length];
        if (c == '(' || c == '[')
            depth++;
        else if (c == ')' || c == ']')
            depth--;
        else if ((c == ' ' || c == '\n' || c == '\t') && depth <= 0)
            break;
    }
    return length;
}

int nio_spec_check_synthetic(const char *spec)
{
    unsigned long total = 1, words = 0;
    for (const char *at = spec + strspn(spec, " \n\t"); *at;) {
        char word[WORD_BYTES];
        size_t length = word_length(at);
        /* "[numa]" hangs memory on the level above, "(...)" are attributes of the machine */
        bool is_attached = *at == '[' || *at == '(';
        size_t copied = length < sizeof word ? length : sizeof word - 1;
        memcpy(word, at, copied);
        word[copied] = '\0';
        int err = is_attached ? 0 : check_word(word, &total);
        if (err)
            return err;
        words++;
        at += length;
        at += strspn(at, " \n\t");
    }
    return words ? 0 : nio_error(-EINVAL, "topology: the description is empty");
}

int nio_spec_check_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int err = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
    if (fd >= 0)
        (void)close(fd); /* only looked at */
    if (err)
        return nio_error(err, "topology: %s: %s", path, strerror(-err));
    if (!S_ISREG(st.st_mode))
        return nio_error(-EINVAL, "topology: %s is not a file", path);
    return 0;
}
