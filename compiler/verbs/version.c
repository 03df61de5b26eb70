#include <stdio.h>

#include "compiler/verbs/verbs.h"
#include "runtime/base/version.h"

int verb_version(int argc, char **argv) {
    (void)argc, (void)argv;
    printf("adallmc %s\n", ADALLM_VERSION);
    return 0;
}
