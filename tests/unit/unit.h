// cmocka and what it wants before it.
#ifndef ADALLM_TESTS_UNIT_H
#define ADALLM_TESTS_UNIT_H
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#endif
