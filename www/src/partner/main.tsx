import { render } from 'preact';
import { Partner } from './app.tsx';
import '../style.css';

const root = document.getElementById('app');
if (root) render(<Partner />, root);
