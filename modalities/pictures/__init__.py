"""Picture files and their pixels: what images and frames of videos share."""
