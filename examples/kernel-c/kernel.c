/* Blurs an image of rows x columns pixels: spec.py says what is right. */
#include <stdint.h>

void kernel(const float *image, float *out, int64_t rows, int64_t columns) {
    static const float weights[3] = {1.0f, 2.0f, 1.0f};
    for (int64_t y = 0; y < rows; y++) {
        for (int64_t x = 0; x < columns; x++) {
            float sum = 0.0f;
            for (int dy = -1; dy <= 1; dy++) {
                for (int dx = -1; dx <= 1; dx++) {
                    int64_t row = (y + dy + rows) % rows;
                    int64_t column = (x + dx + columns) % columns;
                    sum += weights[dy + 1] * weights[dx + 1] * image[row * columns + column];
                }
            }
            out[y * columns + x] = sum / 16.0f;
        }
    }
}
