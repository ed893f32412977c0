// Windows of one element of a result, over the rows and columns of an image.
#pragma once

// The image, the window, its steps, dilations, and padding before the image.
struct of_window { int h, w, kh, kw, sh, sw, dh, dw, pt, pl; };
