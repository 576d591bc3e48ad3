// The one way to include libfuse: the interface version is chosen here.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
