#include <stdio.h>

#include "runtime/base/version.h"
#include "runtime/verbs/verbs.h"

int verb_version(int argc, char **argv) {
    (void)argc, (void)argv;
    printf("adallm-rt %s\n", ADALLM_VERSION);
    return 0;
}
